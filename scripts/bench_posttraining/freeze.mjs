// The complete experiment of FILE with some values set, as JSON: what a run would be frozen with.
//
//   node freeze.mjs FILE [PATH=VALUE ...]
import { toJson } from '@bufbuild/protobuf';
import { loadExperiment } from '../../cli/dist/experiment/load.js';
import { ExperimentSchema } from '../../cli/dist/gen/qscope/v1/experiment_pb.js';

const [file, ...set] = process.argv.slice(2);
try {
  const { experiment } = await loadExperiment([file], { set });
  console.log(JSON.stringify(toJson(ExperimentSchema, experiment)));
} catch (error) {
  console.error([error.message, ...(error.diagnostics ?? []).map((one) => `${one.path}: ${one.message}`)].join('\n'));
  process.exit(1);
}
