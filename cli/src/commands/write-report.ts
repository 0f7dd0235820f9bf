import { renameSync, statSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { toJson } from '@bufbuild/protobuf';
import { ExitCode, UserError } from '../errors.js';
import { commandOfRun } from '../experiment/command.js';
import { ReportSchema } from '../gen/qscope/v1/report_pb.js';
import type { Run } from '../gen/qscope/v1/run_pb.js';
import { isTerminal } from '../launch/local.js';
import { openFile } from '../launch/open.js';
import { locateRun, readArtifact, readOrigin, reportFile } from '../run-folder.js';
import { version } from '../version.js';
import { bytes } from '../view/format.js';
import { printJson, printLine, printNote } from '../view/output.js';
import { runReport } from '../view/report/build.js';
import { reportPage } from '../view/report/page.js';
import { RunStory } from '../view/report/story.js';
import { utcTime } from '../view/report/time.js';
import { watchRun } from '../worker/watch.js';
import type { RunsOptions } from './options.js';
import { type Session, withWorker } from './session.js';

export interface ReportOptions extends RunsOptions {
  output?: string;
  open?: boolean;
  json?: boolean;
}

export async function writeReport(name: string, options: ReportOptions): Promise<void> {
  const located = locateRun(name);
  const runsDir = located?.runsFolder ?? options.runsDir;
  await withWorker({ ...options, runsDir }, async (given) => {
    const run = await given.launcher.status(located?.runId ?? name);
    const story = await storyOf(run, given);
    const now = new Date();
    const report = await runReport({
      run,
      story,
      origin: readOrigin(run.folder),
      now,
      read: (path) => readArtifact(run.folder, path),
    });
    if (options.json) {
      printJson(toJson(ReportSchema, report));
      return ExitCode.ok;
    }
    const page = reportPage(report, {
      kicker: `qscope report · ${commandOfRun(run)} · ${run.runId}`,
      colophon: `Written by qscope ${version()} at ${utcTime(now)}, from ${story.sequence} events of the run ${run.runId}.`,
    });
    const file = options.output === undefined ? reportFile(run.folder) : resolve(options.output);
    write(file, page);
    printLine(file);
    printNote(`${bytes(Buffer.byteLength(page))}${isTerminal(run.state) ? '' : '; the run still works'}`);
    if (options.open && !(await openFile(file))) printNote('No program to show it was found: open the file yourself.');
    return ExitCode.ok;
  });
}

/** The events of a run up to now. */
async function storyOf(run: Run, { session, runsFolder, interrupts }: Session): Promise<RunStory> {
  const { runId, lastSequence, failure } = run;
  if (lastSequence === 0n) {
    throw new UserError(`The run ${runId} has no event to report${failure ? `: ${failure.message}` : ' yet.'}`, {
      hint: failure?.remedy || `If it does not start, its log may say why: qscope runs logs ${runId}`,
    });
  }
  const story = new RunStory();
  for await (const event of watchRun(session, { runId, runsFolder, signal: interrupts.signal })) {
    story.apply(event);
    // A run that works has no end to wait for.
    if (event.sequence >= lastSequence) break;
  }
  if (interrupts.exitCode !== undefined) throw new UserError('Interrupted.', { exitCode: interrupts.exitCode });
  return story;
}

/** Writes aside and renames: who looks at an older page meanwhile sees it whole. */
function write(file: string, page: string): void {
  const aside = `${file}.${process.pid}.tmp`;
  try {
    if (statSync(file, { throwIfNoEntry: false })?.isDirectory()) throw new Error('it is a folder');
    writeFileSync(aside, page);
    renameSync(aside, file);
  } catch (error) {
    throw new UserError(`The report cannot be written to ${file}: ${(error as Error).message}.`, {
      hint: 'Choose another file with -o.',
      cause: error,
    });
  }
}
