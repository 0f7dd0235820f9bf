import { resolve } from 'node:path';
import { Interrupts } from '../launch/interrupts.js';
import type { Launcher } from '../launch/launcher.js';
import { LocalLauncher } from '../launch/local.js';
import type { WorkerAhead } from '../worker/ahead.js';
import { WorkerSession } from '../worker/connect.js';
import { explain } from '../worker/explain.js';
import type { RunsOptions } from './options.js';

export interface Session {
  session: WorkerSession;
  launcher: Launcher;
  interrupts: Interrupts;
  /** Absolute. */
  runsFolder: string;
}

/** What a command may have begun before it knew what it needs. */
export interface EarlyStart {
  interrupts?: Interrupts | undefined;
  ahead?: WorkerAhead | undefined;
}

/** Opens a worker for one command, ends it afterwards, and sets the exit code that the action returns. */
export async function withWorker(
  options: RunsOptions & EarlyStart,
  action: (given: Session) => Promise<number>,
): Promise<void> {
  const { python, ahead, interrupts = new Interrupts() } = options;
  const runsFolder = resolve(options.runsDir);
  let session: WorkerSession | undefined;
  try {
    session = await WorkerSession.open({ python, ahead, signal: interrupts.signal });
    process.exitCode = await action({
      session,
      interrupts,
      runsFolder,
      launcher: new LocalLauncher(session, runsFolder),
    });
  } catch (error) {
    throw explain(error, { log: session?.log, interrupted: interrupts.exitCode });
  } finally {
    await session?.close();
    await ahead?.dismiss();
    interrupts.dispose();
  }
}
