import { toJson } from '@bufbuild/protobuf';
import { ExitCode } from '../errors.js';
import { RunState } from '../gen/qscope/v1/run_event_pb.js';
import { CancelMode, type Run, RunSchema } from '../gen/qscope/v1/run_pb.js';
import { follow } from '../launch/follow.js';
import { Interrupts } from '../launch/interrupts.js';
import { isTerminal } from '../launch/local.js';
import { failureLines, resumeCommand } from '../view/failure.js';
import { columns, printJson, printLine, printNote } from '../view/output.js';
import { chooseReporter } from '../view/reporter.js';
import { runLines, runsTable } from '../view/runs-view.js';
import { stateName } from '../view/summary.js';
import { WorkerAhead } from '../worker/ahead.js';
import type { FollowOptions, RunsOptions } from './options.js';
import { sayDetached } from './run-experiment.js';
import { withWorker } from './session.js';

const LIST_MS = 30_000;

export async function list(options: RunsOptions & { json?: boolean }): Promise<void> {
  await withWorker(options, async ({ session, runsFolder }) => {
    const all: Run[] = [];
    let pageToken = '';
    do {
      const request = { runsFolder, pageToken };
      const page = await session.retry(({ runs }) => runs.listRuns(request, { timeoutMs: LIST_MS }));
      all.push(...page.runs);
      pageToken = page.nextPageToken;
    } while (pageToken);
    if (options.json) for (const run of all) printJson(toJson(RunSchema, run));
    else if (all.length === 0) printNote(`There are no runs in ${runsFolder}.`);
    else for (const line of runsTable(all, process.stdout.isTTY ? columns('stdout') : undefined)) printLine(line);
    return ExitCode.ok;
  });
}

export async function show(id: string, options: RunsOptions & { json?: boolean }): Promise<void> {
  await withWorker(options, async ({ launcher }) => {
    const run = await launcher.status(id);
    if (options.json) {
      printJson(toJson(RunSchema, run));
      return ExitCode.ok;
    }
    for (const line of runLines(run)) printLine(line);
    const failure = failureLines(run);
    if (failure.length > 0) for (const line of ['', ...failure]) printLine(line);
    const command = resumeCommand(run);
    if (command) printLine(`\nGo on with: ${command}`);
    return ExitCode.ok;
  });
}

export async function watch(id: string, options: RunsOptions & FollowOptions): Promise<void> {
  await withWorker(options, async (given) => {
    const run = await given.launcher.status(id);
    return follow(run, { ...given, reporter: await chooseReporter(options), owner: false });
  });
}

export async function logs(id: string, options: RunsOptions & { follow?: boolean }): Promise<void> {
  await withWorker(options, async ({ launcher, interrupts }) => {
    const run = await launcher.status(id);
    const stop = new AbortController();
    interrupts.handle(() => stop.abort());
    for await (const line of launcher.logs(run, { follow: options.follow ?? false, signal: stop.signal }))
      printLine(line);
    return interrupts.exitCode ?? ExitCode.ok;
  });
}

export async function cancel(id: string, options: RunsOptions & { now?: boolean }): Promise<void> {
  await withWorker(options, async ({ launcher }) => {
    const before = await launcher.status(id);
    if (isTerminal(before.state)) {
      printNote(`The run ${before.runId} has ended already: ${stateName(before.state)}.`);
      return ExitCode.ok;
    }
    const mode = options.now ? CancelMode.IMMEDIATE : CancelMode.GRACEFUL;
    await launcher.cancel(before.runId, mode, 'qscope runs cancel');
    printNote(`The run ${before.runId} stops${options.now ? ' at once' : ' after its step, with a checkpoint'}.`);
    return ExitCode.ok;
  });
}

export async function resume(id: string, options: RunsOptions & FollowOptions): Promise<void> {
  const { detach = false, json } = options;
  const interrupts = new Interrupts();
  const ahead = WorkerAhead.begin({ python: options.python, signal: interrupts.signal });
  await withWorker({ ...options, interrupts, ahead }, async (given) => {
    const { launcher } = given;
    // The events of earlier attempts were seen then; the new attempt begins behind them.
    const before = await launcher.status(id);
    const run = await launcher.resume(before.runId, { detach });
    if (detach) {
      sayDetached(run, json);
      return ExitCode.ok;
    }
    if (before.state === RunState.FAILED && before.failure) printNote(`It had failed: ${before.failure.message}`);
    return follow(run, { ...given, reporter: await chooseReporter(options), owner: true, after: before.lastSequence });
  });
}
