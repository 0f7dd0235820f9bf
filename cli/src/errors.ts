/** The one table of exit codes; also in the README. */
export const ExitCode = {
  ok: 0,
  /** The run failed. */
  failed: 1,
  /** Wrong usage of the command line. */
  usage: 2,
  /** The experiment is invalid (EX_DATAERR). */
  invalid: 65,
  /** No worker can be reached or started (EX_UNAVAILABLE). */
  unreachable: 69,
  /** A bug of ours (EX_SOFTWARE). */
  internal: 70,
  /** A checkpoint is written: run the same again (EX_TEMPFAIL, which schedulers key on). */
  tryAgain: 75,
  interrupted: 130,
  terminated: 143,
} as const;

export interface UserErrorOptions {
  /** What to do about it. */
  hint?: string | undefined;
  exitCode?: number;
  cause?: unknown;
}

/**
 * Something the user can understand and mend: shown as one sentence and a remedy, never with a stack trace.
 * Every other error that reaches `main` counts as a bug of ours.
 */
export class UserError extends Error {
  override readonly name: string = 'UserError';
  readonly hint: string | undefined;
  readonly exitCode: number;

  constructor(message: string, { hint, exitCode = ExitCode.failed, cause }: UserErrorOptions = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.hint = hint;
    this.exitCode = exitCode;
  }

  /** The text for the terminal, without a final newline. Sub-classes with more to show override it. */
  render(): string {
    return this.hint ? `${this.message}\n${this.hint}` : this.message;
  }
}
