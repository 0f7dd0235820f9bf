import { ExitCode, UserError } from '../errors.js';
import { RpcError } from './rpc-error.js';

export interface ExplainContext {
  /** Path of the worker's log. */
  log?: string | undefined;
  /** Exit code of a signal that came meanwhile. */
  interrupted?: number | undefined;
}

/** Turns a failed call into what the user can do about it; every other error is handed back as it is. */
export function explain(error: unknown, { log, interrupted }: ExplainContext): unknown {
  if (!(error instanceof RpcError)) return error;
  if (interrupted !== undefined && error.is('CANCELLED')) {
    return new UserError('Interrupted.', { exitCode: interrupted, cause: error });
  }
  const { rawMessage, info } = error;
  const remedy = info?.metadata.remedy || undefined;
  const where = log ? `Its log: ${log}` : undefined;
  if (error.is('UNAVAILABLE', 'CANCELLED')) {
    return new UserError(`The worker went away (${rawMessage}).`, {
      hint: remedy ?? where,
      exitCode: ExitCode.unreachable,
      cause: error,
    });
  }
  if (error.is('DEADLINE_EXCEEDED')) {
    return new UserError('The worker did not answer in time.', {
      hint: [where, 'Try again, or end it with `qscope worker stop`.'].filter(Boolean).join('\n'),
      exitCode: ExitCode.unreachable,
      cause: error,
    });
  }
  if (error.is('INVALID_ARGUMENT', 'NOT_FOUND', 'ALREADY_EXISTS')) {
    return new UserError(rawMessage, { hint: remedy, exitCode: ExitCode.usage, cause: error });
  }
  // The worker names a reason for everything that is not its own mistake.
  if (info && info.reason !== 'INTERNAL') {
    return new UserError(rawMessage, { hint: remedy, exitCode: ExitCode.failed, cause: error });
  }
  return new UserError(`The worker failed: ${rawMessage}`, {
    hint: [where, 'This is a bug in qscope: please report it with the end of that log.'].filter(Boolean).join('\n'),
    exitCode: ExitCode.internal,
    cause: error,
  });
}
