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
            if (layer === WHOLE_RUN) this.first.has(name) ? this.again.add(name) : this.first.set(name, value);
            target.set(name, value);
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

  private layerValues(layer: number): Map<string, number> {
    const known = this.layers.get(layer) ?? new Map<string, number>();
    this.layers.set(layer, known);
    return known;
  }
}
