import { fromBinary } from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { status as Code, type Metadata } from '@grpc/grpc-js';
import { BadRequestSchema, ErrorInfoSchema } from '../gen/google/rpc/error_details_pb.js';
import { StatusSchema } from '../gen/google/rpc/status_pb.js';

/** A field of the request that the server refused. */
export interface FieldViolation {
  /** Path in the message, for example `experiment.train_sae.layers[2]`. */
  readonly field: string;
  readonly description: string;
}

/** A machine-readable cause: an upper-snake reason and its particulars. */
export interface ErrorReason {
  readonly reason: string;
  readonly domain: string;
  readonly metadata: Readonly<Record<string, string>>;
}

interface Details {
  fieldViolations: FieldViolation[];
  info: ErrorReason | undefined;
}

/** A failed call. Made once, at the border: nothing above the client sees the errors of grpc-js. */
export class RpcError extends Error {
  override readonly name = 'RpcError';

  constructor(
    readonly code: Code,
    /** The server's text without the name of the code. */
    readonly rawMessage: string,
    readonly fieldViolations: readonly FieldViolation[] = [],
    /** The server's ErrorInfo, if it sent one. */
    readonly info: ErrorReason | undefined = undefined,
    cause?: unknown,
  ) {
    super(`[${Code[code]}] ${rawMessage}`, { cause });
  }

  static from(error: unknown): RpcError {
    if (error instanceof RpcError) return error;
    const { code, details, metadata, message } = error as Partial<RawError>;
    if (typeof code !== 'number') return new RpcError(Code.INTERNAL, message ?? String(error), [], undefined, error);
    const { fieldViolations, info } = readDetails(metadata);
    return new RpcError(code, details || message || '', fieldViolations, info, error);
  }

  /** True for the codes given, by name: `error.is('UNAVAILABLE')`. */
  is(...names: ReadonlyArray<keyof typeof Code>): boolean {
    return names.some((name) => Code[name] === this.code);
  }
}

interface RawError {
  code: number;
  details: string;
  message: string;
  metadata: Metadata;
}

function readDetails(metadata: Metadata | undefined): Details {
  const found: Details = { fieldViolations: [], info: undefined };
  const [bytes] = metadata?.get('grpc-status-details-bin') ?? [];
  if (!bytes || typeof bytes === 'string') return found;
  for (const any of fromBinary(StatusSchema, bytes).details) {
    const badRequest = anyUnpack(any, BadRequestSchema);
    if (badRequest) {
      found.fieldViolations.push(
        ...badRequest.fieldViolations.map(({ field, description }) => ({ field, description })),
      );
    }
    const info = anyUnpack(any, ErrorInfoSchema);
    if (info) found.info = { reason: info.reason, domain: info.domain, metadata: info.metadata };
  }
  return found;
}
