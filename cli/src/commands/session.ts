import { resolve } from 'node:path';
import { Interrupts } from '../launch/interrupts.js';
import type { Launcher } from '../launch/launcher.js';
import { LocalLauncher } from '../launch/local.js';
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

/** Opens a worker for one command, ends it afterwards, and sets the exit code that the action returns. */
export async function withWorker(options: RunsOptions, action: (given: Session) => Promise<number>): Promise<void> {
  const interrupts = new Interrupts();
  const runsFolder = resolve(options.runsDir);
  let session: WorkerSession | undefined;
  try {
    session = await WorkerSession.open({ python: options.python, signal: interrupts.signal });
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
    interrupts.dispose();
  }
}
