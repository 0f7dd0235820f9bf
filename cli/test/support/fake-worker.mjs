#!/usr/bin/env node
// A worker without Python: it takes the place of the interpreter and speaks the contract, so that the life of a command
// (signals, lost workers, exit codes) can be tested in milliseconds. The tests in tests/ use the real one.
//
// Its runs need no process: what has happened in one follows from the time since its start, so that every instance tells
// the same story. The name of the experiment chooses the story.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { create, toBinary } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import { status as Code, Metadata, Server, ServerCredentials } from '@grpc/grpc-js';
import { BadRequestSchema, ErrorInfoSchema } from '../../dist/gen/google/rpc/error_details_pb.js';
import { StatusSchema } from '../../dist/gen/google/rpc/status_pb.js';
import { RunState } from '../../dist/gen/qscope/v1/run_event_pb.js';
import { CancelMode, RunService } from '../../dist/gen/qscope/v1/run_pb.js';
import { WorkerService } from '../../dist/gen/qscope/v1/worker_pb.js';
import { serviceDefinition } from '../../dist/worker/definition.js';

const EVENT_MS = 20;
const STORIES = {
  short: { events: 10, end: RunState.SUCCEEDED },
  long: { events: 100_000, end: RunState.SUCCEEDED },
  fails: { events: 5, end: RunState.FAILED },
  preempted: { events: 5, end: RunState.PREEMPTED },
};

const { values } = parseArgs({
  options: {
    m: { type: 'string', short: 'm' },
    socket: { type: 'string' },
    'ready-fd': { type: 'string' },
    owned: { type: 'boolean' },
    spare: { type: 'boolean' },
  },
});

const storyOf = ({ name }) => STORIES[name.split('-')[0]] ?? STORIES.short;
const read = (folder) => JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8'));
const write = (folder, run) => writeFileSync(join(folder, 'run.json'), JSON.stringify(run));

/** All events of a run so far. */
function events(run) {
  const story = storyOf(run);
  const until = run.cancelled ?? Date.now();
  const steps = Math.min(story.events, Math.floor((until - run.started) / EVENT_MS));
  const list = [{ case: 'stateChanged', value: { state: RunState.RUNNING, message: 'started' } }];
  for (let step = 1; step <= steps; step++) {
    list.push({
      case: 'progress',
      value: {
        phase: 'training',
        current: step * 1000,
        total: story.events * 1000,
        unit: 'tokens',
        rate: 5e4,
        etaSeconds: 60,
      },
    });
    list.push({
      case: 'metrics',
      value: { entries: [{ step: BigInt(step), layer: 0, values: { fvu: 1 / step, l0: 16 } }] },
    });
  }
  if (run.cancelled) {
    // A stubborn run takes a long time over its checkpoint.
    const takes = run.name.includes('stubborn') && run.mode === CancelMode.GRACEFUL ? 600_000 : 100;
    if (Date.now() - run.cancelled > takes) list.push({ case: 'stateChanged', value: { state: RunState.CANCELLED } });
  } else if (steps === story.events) {
    list.push({
      case: 'stateChanged',
      value: { state: story.end, ...(story.end === RunState.FAILED && { failure: FAILURE }) },
    });
  }
  return list.map((event, index) => ({ sequence: BigInt(index + 1), event }));
}

const FAILURE = {
  message: 'The loss of layer 2 became NaN at step 5.',
  remedy: 'Lower the learning rate.',
  reason: 'NAN_LOSS',
};

function describe(folder) {
  const run = read(folder);
  const all = events(run);
  const { state } = all.findLast(({ event }) => event.case === 'stateChanged').event.value;
  const ended = state !== RunState.RUNNING;
  return {
    runId: run.id,
    state,
    verb: 'train-sae',
    folder,
    lastSequence: BigInt(all.length),
    resumable: ended && state !== RunState.SUCCEEDED,
    ...(state === RunState.FAILED && { failure: FAILURE, logTail: ['step 4', 'step 5'] }),
  };
}

const find = ({ runsFolder, runId }) => {
  const folder = join(runsFolder, runId === 'latest' ? readdirSync(runsFolder).at(-1) : runId);
  if (existsSync(folder)) return folder;
  throw refusal(Code.NOT_FOUND, `There is no run "${runId}" in ${runsFolder}.`, 'RUN_NOT_FOUND');
};

function refusal(code, message, reason, field) {
  const details = [
    anyPack(
      ErrorInfoSchema,
      create(ErrorInfoSchema, { reason, domain: 'qscope', metadata: { remedy: 'Look again.' } }),
    ),
  ];
  if (field) {
    const fieldViolations = [{ field, description: message }];
    details.push(anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations })));
  }
  const metadata = new Metadata();
  metadata.add(
    'grpc-status-details-bin',
    Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code, message, details }))),
  );
  return { code, details: message, metadata };
}

const unary = (method) => (call, done) => {
  try {
    done(null, method(call.request));
  } catch (error) {
    done(error.code ? error : { code: Code.INTERNAL, details: String(error) });
  }
};

const runService = {
  startRun: unary(({ experiment, runsFolder, requestId }) => {
    if (experiment.name.startsWith('invalid')) {
      throw refusal(Code.INVALID_ARGUMENT, 'The model has 6 layers.', 'LAYER_OUT_OF_RANGE', 'train_sae.layers[1]');
    }
    const id = `${experiment.name}-${requestId.slice(0, 8)}`;
    const folder = join(runsFolder, id);
    mkdirSync(folder, { recursive: true });
    write(folder, { id, name: experiment.name, started: Date.now() });
    writeFileSync(join(folder, 'run.log'), 'first line\nlast line\n');
    return { run: describe(folder) };
  }),
  getRun: unary((request) => ({ run: describe(find(request)) })),
  listRuns: unary(({ runsFolder }) => ({
    runs: existsSync(runsFolder) ? readdirSync(runsFolder).map((name) => describe(join(runsFolder, name))) : [],
  })),
  cancelRun: unary((request) => {
    const folder = find(request);
    const run = read(folder);
    write(folder, { ...run, cancelled: run.cancelled ?? Date.now(), mode: request.mode });
    return { run: describe(folder) };
  }),
  resumeRun: unary((request) => {
    const folder = find(request);
    const { id } = read(folder);
    // Behind the events of the first attempt.
    const earlier = events(read(folder)).length;
    write(folder, { id, name: 'short', started: Date.now() - earlier * EVENT_MS });
    return { run: describe(folder) };
  }),
  validateExperiment: unary(({ experiment }) => ({
    plan: {
      facts: [{ name: 'arm', value: String(experiment.task.value.arm) }],
      samples: [{ segments: [{ text: 'question' }, { text: ' answer', answer: true }], tokens: 2, answerTokens: 1 }],
      fits: true,
    },
  })),
  async watchRun(call) {
    let { afterSequence } = call.request;
    const folder = find(call.request);
    while (!call.cancelled) {
      const { state } = describe(folder);
      const fresh = events(read(folder)).filter(({ sequence }) => sequence > afterSequence);
      if (fresh.length > 0) {
        afterSequence = fresh.at(-1).sequence;
        call.write({ events: fresh, lastSequence: afterSequence });
      }
      if (state !== RunState.RUNNING) break;
      await sleep(EVENT_MS);
    }
    call.end();
  },
};

const workerService = {
  getWorkerInfo: unary(() => ({ protocolVersion: '1.0', packageVersion: '0.1.0', pid: process.pid, devices: ['cpu'] })),
  shutdown: unary(() => {
    setTimeout(() => process.exit(0), 20);
    return {};
  }),
};

const server = new Server();
server.addService(serviceDefinition(RunService), runService);
server.addService(serviceDefinition(WorkerService), workerService);
server.bindAsync(`unix:${values.socket}`, ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
  const ready = {
    address: `unix:${values.socket}`,
    pid: process.pid,
    protocol_version: process.env.FAKE_PROTOCOL ?? '1.0',
    version: '0.1.0',
  };
  writeSync(Number(values['ready-fd']), `${JSON.stringify(ready)}\n`);
});
if (values.owned) {
  process.stdin.on('end', () => process.exit(0));
  process.stdin.resume();
}
