import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { commandOfRun } from '../../experiment/command.js';
import { emitYaml } from '../../experiment/emit.js';
import { ExperimentSchema } from '../../gen/qscope/v1/experiment_pb.js';
import { type Report, ReportSchema, type ReportSection, ReportSectionSchema } from '../../gen/qscope/v1/report_pb.js';
import type { Run } from '../../gen/qscope/v1/run_pb.js';
import type { RunOrigin } from '../../run-folder.js';
import { curvesSection } from './curves.js';
import { evaluationSection } from './evaluation.js';
import { factsSection } from './facts.js';
import { readFound } from './found.js';
import { newestSection } from './layers.js';
import { endSection, summary, warningsSection } from './outcome.js';
import type { RunStory } from './story.js';

export interface ReportSource {
  run: Run;
  story: RunStory;
  origin: RunOrigin;
  now: Date;
  /** The text of a file of the run folder; undefined when it is not there. */
  read: (path: string) => string | undefined;
}

type Part = ReportSection | undefined;

/** All there is to say about a run: how it went, what its recipe found, its measures, and how to do it again. */
export async function runReport(source: ReportSource): Promise<Report> {
  const { run, story, read } = source;
  const missing: string[] = [];
  const text = (kind: string) => {
    const path = story.artifact(kind)?.path;
    const content = path === undefined ? undefined : read(path);
    if (path !== undefined && content === undefined) missing.push(path);
    return path === undefined || content === undefined ? undefined : { content, path };
  };
  const foundText = text('report');
  const found = foundText && (await readFound(foundText.content, foundText.path));
  const evaluation = text('evaluation');
  const parts: Part[] = [
    endSection(source),
    warningsSection(story, missing),
    factsSection(source),
    ...(found?.sections ?? []),
    evaluation ? evaluationSection(evaluation.content, evaluation.path) : newestSection(story),
    curvesSection(story),
    resultsSection(story),
    linesSection(story),
    ...repeatSections(source),
  ];
  return create(ReportSchema, {
    title: found?.title || run.runId,
    subtitle: found?.subtitle || summary(source),
    sections: parts.filter((part) => part !== undefined),
  });
}

function resultsSection({ artifacts, checkpoint }: RunStory): Part {
  const rows = [...artifacts.values()].map(({ path, description }) => [path, description]);
  if (checkpoint) rows.push([checkpoint.path, `newest checkpoint, step ${checkpoint.step}`]);
  if (rows.length === 0) return undefined;
  return create(ReportSectionSchema, {
    heading: 'Results in the run folder',
    content: {
      case: 'table',
      value: {
        columns: [{ name: 'path' }, { name: 'what it is' }],
        rows: rows.map((cells) => ({
          cells: cells.map((value) => ({ value: { case: 'text' as const, value: value ?? '' } })),
        })),
      },
    },
  });
}

/** Lines shown of a run that said more; half of them its first, half its last. */
const LINES = 200;

function linesSection({ lines }: RunStory): Part {
  if (lines.length === 0) return undefined;
  const shown = lines.map(({ time, text }) => `${time ? `${time.toISOString().slice(11, 19)}  ` : ''}${text}`);
  const omitted = shown.length - LINES;
  if (omitted > 0) shown.splice(LINES / 2, omitted, `(${omitted} lines left out)`);
  return create(ReportSectionSchema, {
    heading: 'What the run said',
    text: 'Times are UTC.',
    folded: true,
    content: { case: 'verbatim', value: { text: shown.join('\n'), language: 'log' } },
  });
}

/** The experiment and the command that runs it again. */
function repeatSections({ run, origin }: ReportSource): ReportSection[] {
  const { yaml, experiment, versions } = origin;
  if (!experiment) return [];
  const file = `${experiment.name}.yaml`;
  const seed = experiment.seed;
  const program = versions.git ? `qscope at commit ${versions.git}` : `qscope ${versions.qscope ?? ''}`.trim();
  const sections: Array<MessageInitShape<typeof ReportSectionSchema>> = [
    {
      heading: `${file}, with every value`,
      folded: yaml.trim() !== '',
      content: { case: 'verbatim', value: { text: emitYaml(ExperimentSchema, experiment), language: 'yaml' } },
    },
    {
      heading: 'Versions',
      content: {
        case: 'facts',
        value: { facts: Object.entries(versions).map(([name, value]) => ({ name, value })) },
      },
    },
  ];
  if (yaml.trim() !== '') {
    sections.unshift({
      heading: 'The experiment as it was written',
      folded: false,
      content: { case: 'verbatim', value: { text: yaml.trimEnd(), language: 'yaml' } },
    });
  }
  return [
    create(ReportSectionSchema, {
      heading: 'How to repeat it',
      text:
        `Save the experiment with every value as ${file} and run it with ${program}. Every random generator derives from ` +
        `its seed, ${seed}; results equal to the last bit also need the versions below and the same number of threads.`,
      content: { case: 'verbatim', value: { text: `qscope ${commandOfRun(run)} ${file}`, language: 'sh' } },
      sections,
    }),
  ];
}
