import { findPython } from './python.js';
import { readRecord } from './record.js';
import { type StartedWorker, startWorker } from './start.js';

export interface AheadOptions {
  /** Value of `--python`. */
  python?: string | undefined;
  signal: AbortSignal;
}

/** A worker for a run, on its way before it is certain to be needed: its imports take longer than all else. */
export class WorkerAhead {
  private readonly dismissal = new AbortController();
  private readonly started: Promise<StartedWorker>;
  private isTaken = false;

  private constructor({ python, signal }: AheadOptions) {
    const ending = AbortSignal.any([signal, this.dismissal.signal]);
    this.started = (async () =>
      startWorker({ python: findPython(python), owned: true, spare: true, signal: ending }))();
    // What went wrong is told to the one who takes it.
    this.started.catch(() => {});
  }

  /** Starts a worker; undefined where a background worker will do. */
  static begin(options: AheadOptions): WorkerAhead | undefined {
    return readRecord() ? undefined : new WorkerAhead(options);
  }

  /** The worker, to be ended by the caller; undefined the second time. */
  take(): Promise<StartedWorker> | undefined {
    if (this.isTaken) return undefined;
    this.isTaken = true;
    return this.started;
  }

  /** Ends the worker at once, unless it was taken. */
  async dismiss(): Promise<void> {
    if (this.isTaken) return;
    this.isTaken = true;
    this.dismissal.abort();
    const worker = await this.started.catch(() => undefined);
    await worker?.kill();
  }
}
