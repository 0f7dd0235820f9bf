import { constants } from 'node:os';
import { whenOutputCloses } from '../view/output.js';

/** How urgently the user wants to leave: 1 in good order, 2 at once. */
export type Urgency = 1 | 2;

/** npm and some shells send a second Ctrl-C for the same key press. */
const SAME_PRESS_MS = 300;

/**
 * Turns signals into requests to stop. The first asks for good order, the second for haste, the third Ctrl-C ends this
 * process. The end of the terminal (SIGHUP, a closed pipe) asks for good order and is never more than a first request.
 */
export class Interrupts {
  /** Exit code of the first signal: 130 for Ctrl-C, 143 for SIGTERM; undefined when none came. */
  exitCode: number | undefined;
  private readonly first = new AbortController();
  private requests = 0;
  private lastTime = Number.NEGATIVE_INFINITY;
  private action: ((urgency: Urgency) => void) | undefined;
  private readonly release: Array<() => void> = [];

  constructor() {
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      const listener = () => this.raise(name);
      process.on(name, listener);
      this.release.push(() => process.off(name, listener));
    }
    this.release.push(whenOutputCloses(() => this.raise('SIGPIPE')));
  }

  /** Aborted by the first request: for what may simply be given up, such as waiting for a worker. */
  get signal(): AbortSignal {
    return this.first.signal;
  }

  /** Says what a request means from now on. One that came before is handed over at once. */
  handle(action: (urgency: Urgency) => void): void {
    this.action = action;
    if (this.requests > 0) action(this.requests > 1 ? 2 : 1);
  }

  /** Gives the signals their usual meaning back. */
  dispose(): void {
    for (const release of this.release) release();
  }

  private raise(name: 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'SIGPIPE'): void {
    const isEnd = name === 'SIGHUP' || name === 'SIGPIPE';
    const now = performance.now();
    if (this.requests > 0 && (isEnd || now - this.lastTime < SAME_PRESS_MS)) return;
    this.lastTime = now;
    this.requests += 1;
    this.exitCode ??= 128 + constants.signals[name];
    if (this.requests > 2 || (this.requests > 1 && !this.action)) process.exit(this.exitCode);
    this.first.abort();
    this.action?.(this.requests > 1 ? 2 : 1);
  }
}
