import { toJson } from '@bufbuild/protobuf';
import { ExitCode, UserError } from '../errors.js';
import { loadExperiment, type Task } from '../experiment/load.js';
import { PlanSchema } from '../gen/qscope/v1/run_pb.js';
import { colours, columns, printJson, printLine } from '../view/output.js';
import { planLines } from '../view/plan-view.js';
import { placeFaults } from './experiment-faults.js';
import { settings } from './options.js';
import type { PlanOptions } from './plan.js';
import { withWorker } from './session.js';

/** Looking at a model's description may mean fetching it first. */
const PLAN_MS = 120_000;

/** Shows what an experiment would do and need. Exit code 1 when the memory does not suffice. */
export async function planExperiment(files: string[], options: PlanOptions, verb?: Task): Promise<void> {
  const { experiment, locate } = await loadExperiment(files, { set: settings(options), ...(verb && { verb }) });
  await withWorker(options, async ({ session, interrupts: { signal }, runsFolder }) => {
    const request = { experiment, runsFolder };
    const { plan } = await session
      .retry(({ runs }) => runs.validateExperiment(request, { timeoutMs: PLAN_MS, signal }))
      .catch((error) => {
        throw placeFaults(error, locate);
      });
    if (!plan) throw new UserError('The worker answered without a plan.', { hint: 'Run `npm run setup`.' });
    if (options.json) printJson(toJson(PlanSchema, plan, { alwaysEmitImplicit: true }));
    else
      for (const line of planLines(plan, { width: columns('stdout'), paint: await colours('stdout') })) printLine(line);
    return plan.fits ? ExitCode.ok : ExitCode.failed;
  });
}
