import { timestampDate } from '@bufbuild/protobuf/wkt';
import {
  type Artifact,
  type CheckpointWritten,
  LogLevel,
  type MetricsBatch,
  type RunEvent,
  RunState,
} from '../../gen/qscope/v1/run_event_pb.js';

/** Layer number under which the metrics of the whole run come. */
export const WHOLE_RUN = -1;

/** Step to value. */
export type Curve = Map<number, number>;

interface Attempt {
  began: Date;
  /** Time of its newest event. */
  until: Date;
}

/** All that the journal of a run says, from its first event to its newest. */
export class RunStory {
  /** Sequence number of the newest event. */
  sequence = 0n;
  readonly attempts: Attempt[] = [];
  /** Every value of every metric: name to layer to steps. A step that was done again counts as it was done last. */
  readonly metrics = new Map<string, Map<number, Curve>>();
  readonly lines: Array<{ time: Date | undefined; text: string }> = [];
  /** Warnings and errors in the order of their first time, and how often each was given. */
  readonly warnings = new Map<string, number>();
  /** Newest of each path. */
  readonly artifacts = new Map<string, Artifact>();
  checkpoint: CheckpointWritten | undefined;
  /** Steps at which the run was resumed. */
  readonly resumedAt: number[] = [];
  steps = 0;

  apply({ sequence, time, event }: RunEvent): void {
    this.sequence = sequence;
    const now = time && timestampDate(time);
    switch (event.case) {
      case 'stateChanged':
        if (event.value.state === RunState.RUNNING) this.begin(now);
        break;
      case 'metrics':
        this.addMetrics(event.value);
        break;
      case 'log': {
        const { level, text } = event.value;
        if (level >= LogLevel.WARNING) this.warnings.set(text, (this.warnings.get(text) ?? 0) + 1);
        else if (level !== LogLevel.DEBUG) this.lines.push({ time: now, text });
        break;
      }
      case 'checkpoint':
        this.checkpoint = event.value;
        break;
      case 'artifact':
        // Behind the others when it is written again: the newest of a kind is the last one.
        this.artifacts.delete(event.value.path);
        this.artifacts.set(event.value.path, event.value);
        break;
    }
    const attempt = this.attempts.at(-1);
    if (attempt && now) attempt.until = now;
  }

  /** Seconds of work, without the time between two attempts. */
  get seconds(): number {
    return this.attempts.reduce((sum, { began, until }) => sum + (until.getTime() - began.getTime()) / 1000, 0);
  }

  /** The newest artifact of a kind. */
  artifact(kind: string): Artifact | undefined {
    return [...this.artifacts.values()].findLast((artifact) => artifact.kind === kind);
  }

  /** The newest value of a metric of one layer. */
  newest(name: string, layer: number): number | undefined {
    return [...(this.metrics.get(name)?.get(layer)?.values() ?? [])].at(-1);
  }

  private begin(now: Date | undefined): void {
    if (this.attempts.length > 0) this.resumedAt.push(Number(this.checkpoint?.step ?? 0n));
    if (now) this.attempts.push({ began: now, until: now });
  }

  private addMetrics({ entries }: MetricsBatch): void {
    for (const { step, layer, values } of entries) {
      this.steps = Math.max(this.steps, Number(step));
      for (const [name, value] of Object.entries(values)) {
        const layers = this.metrics.get(name) ?? new Map<number, Curve>();
        this.metrics.set(name, layers);
        const curve = layers.get(layer) ?? new Map<number, number>();
        layers.set(layer, curve);
        curve.set(Number(step), value);
      }
    }
  }
}
