import { create } from '@bufbuild/protobuf';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { commandOfRun } from '../../experiment/command.js';
import { type ReportSection, ReportSectionSchema } from '../../gen/qscope/v1/report_pb.js';
import { bytes, clock, count } from '../format.js';
import { stateName } from '../summary.js';
import type { ReportSource } from './build.js';
import { grouped } from './numbers.js';
import { WHOLE_RUN } from './story.js';
import { utcTime } from './time.js';

/** The run in a few words each. */
export function factsSection({ run, story, origin }: ReportSource): ReportSection {
  const { attempts, checkpoint, seconds } = story;
  const { experiment, versions } = origin;
  const tokens = story.newest('tokens', WHOLE_RUN);
  const began = attempts[0]?.began ?? (run.created && timestampDate(run.created));
  const facts: Array<[name: string, value: string | undefined]> = [
    ['run', run.runId],
    ['state', stateName(run.state)],
    ['verb', commandOfRun(run)],
    ['model', experiment?.model],
    ['began', began && utcTime(began)],
    [
      'worked for',
      seconds > 0 ? `${clock(seconds)}${attempts.length > 1 ? ` in ${attempts.length} attempts` : ''}` : '',
    ],
    ['steps', story.steps > 0 ? grouped(story.steps) : ''],
    ['tokens', tokens === undefined ? '' : count(tokens)],
    ['seed', experiment && String(experiment.seed)],
    ['checkpoint', checkpoint && `step ${grouped(Number(checkpoint.step))}, ${bytes(Number(checkpoint.bytes))}`],
    ['qscope', versions.qscope],
    ['torch', versions.torch],
  ];
  return create(ReportSectionSchema, {
    heading: 'The run',
    content: {
      case: 'facts',
      value: { facts: facts.filter(([, value]) => value).map(([name, value]) => ({ name, value: value as string })) },
    },
  });
}
