import type { Experiment } from '../gen/qscope/v1/experiment_pb.js';
import type { CancelMode, Run } from '../gen/qscope/v1/run_pb.js';

/** A run to be started. */
export interface Job {
  /** Made once per command and kept when the request is repeated: the same id never starts two runs. */
  requestId: string;
  experiment: Experiment;
  /** The experiment file as it was written, for the run folder. */
  sourceYaml: string;
  /** Lets the run outlive the command and the worker. */
  detach: boolean;
}

/**
 * What starts and stops runs. However a run was started, its journal lies in its run folder, so watching
 * (`worker/watch.ts`) and reading need no launcher.
 */
export interface Launcher {
  readonly name: string;
  submit(job: Job): Promise<Run>;
  resume(runId: string, options: { detach: boolean }): Promise<Run>;
  status(runId: string): Promise<Run>;
  cancel(runId: string, mode: CancelMode, reason: string): Promise<Run>;
  /** The lines of the run's log; with `follow` until the run has ended. */
  logs(run: Run, options: { follow: boolean; signal?: AbortSignal }): AsyncIterable<string>;
}
