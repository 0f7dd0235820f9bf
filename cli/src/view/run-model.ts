import type { Artifact, CheckpointWritten, Progress, RunEvent } from '../gen/qscope/v1/run_event_pb.js';

/** Layer number under which the metrics of the whole run come. */
const WHOLE_RUN = -1;

/** What the events of a run add up to. Every reporter that draws something reads it. */
export class RunModel {
  progress: Progress | undefined;
  /** Newest value of each metric of the whole run. */
  readonly whole = new Map<string, number>();
  /** First value of each metric of the whole run, and those that came again. */
  readonly first = new Map<string, number>();
  readonly again = new Set<string>();
  /** Step of the newest value of each metric of the whole run. */
  readonly stepOf = new Map<string, bigint>();
  /** Newest value of each metric, by layer. */
  readonly layers = new Map<number, Map<string, number>>();
  readonly artifacts = new Map<string, Artifact>();
  checkpoint: CheckpointWritten | undefined;
  step = 0n;

  apply({ event }: RunEvent): void {
    switch (event.case) {
      case 'progress':
        this.progress = event.value;
        break;
      case 'metrics':
        for (const { step, layer, values } of event.value.entries) {
          const target = layer === WHOLE_RUN ? this.whole : this.layerValues(layer);
          for (const [name, value] of Object.entries(values)) {
            target.set(name, value);
            if (layer === WHOLE_RUN) this.note(name, value, step);
          }
          if (step > this.step) this.step = step;
        }
        break;
      case 'checkpoint':
        this.checkpoint = event.value;
        break;
      case 'artifact':
        this.artifacts.set(event.value.path, event.value);
        break;
    }
  }

  /** Whether a metric was told with another: a step without rare negatives has no advantage of theirs. */
  isOfStep(name: string, lead: string): boolean {
    return lead === '' || this.stepOf.get(name) === this.stepOf.get(lead);
  }

  private note(name: string, value: number, step: bigint): void {
    if (this.first.has(name)) this.again.add(name);
    else this.first.set(name, value);
    this.stepOf.set(name, step);
  }

  private layerValues(layer: number): Map<string, number> {
    const known = this.layers.get(layer) ?? new Map<string, number>();
    this.layers.set(layer, known);
    return known;
  }
}
