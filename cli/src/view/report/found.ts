import { fromJsonString } from '@bufbuild/protobuf';
import { pathToString } from '@bufbuild/protobuf/reflect';
import { UserError } from '../../errors.js';
import { type Report, ReportSchema } from '../../gen/qscope/v1/report_pb.js';

/**
 * What a recipe found, from its report.json.
 *
 * @throws UserError when the text is no report, or its numbers do not fit together.
 */
export async function readFound(text: string, path: string): Promise<Report> {
  let report: Report;
  try {
    report = fromJsonString(ReportSchema, text, { ignoreUnknownFields: true });
  } catch (error) {
    throw unreadable(path, (error as Error).message);
  }
  const { createValidator } = await import('@bufbuild/protovalidate');
  const { violations: [first] = [] } = createValidator().validate(ReportSchema, report);
  if (first) throw unreadable(path, `${pathToString(first.field)}: ${first.message}`);
  return report;
}

function unreadable(path: string, fault: string): UserError {
  return new UserError(`The report ${path} cannot be read (${fault}).`, {
    hint: 'It is damaged or of another version of qscope: run the experiment again, or move the file away to see the rest.',
  });
}
