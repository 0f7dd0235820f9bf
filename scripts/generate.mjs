// Generates both sides of the contract from proto/. Needs `npm run setup` first; contacts no network.
//
// The rules of protovalidate are not vendored as a .proto file: their descriptor ships inside the npm package, so it
// is written to a descriptor set and handed to protoc beside our own files.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { toBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { file_buf_validate_validate } from '../node_modules/@bufbuild/protovalidate/dist/esm/gen/buf/validate/validate_pb.js';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
process.chdir(root);
const python = process.env.QSCOPE_PYTHON ?? path.join('backend-py', '.venv', 'bin', 'python');
const run = (command, args) => execFileSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });

const ours = readdirSync('proto/qscope/v1')
  .filter((name) => name.endsWith('.proto'))
  .sort()
  .map((name) => `qscope/v1/${name}`);
const rules = 'buf/validate/validate.proto';
const statusProtos = ['google/rpc/status.proto', 'google/rpc/error_details.proto'];

const scratch = mkdtempSync(path.join(tmpdir(), 'qscope-generate-'));
try {
  const rulesSet = path.join(scratch, 'rules.binpb');
  const files = [...file_buf_validate_validate.dependencies, file_buf_validate_validate].map((file) => file.proto);
  writeFileSync(
    rulesSet,
    toBinary(FileDescriptorSetSchema, {
      $typeName: 'google.protobuf.FileDescriptorSet',
      file: withDependencies(files),
    }),
  );

  const sitePackages = execFileSync(python, [
    '-c',
    'import google.rpc, pathlib; print(pathlib.Path(google.rpc.__path__[0]).parent.parent)',
  ])
    .toString()
    .trim();
  const protoc = (args) =>
    run(python, [
      '-m',
      'grpc_tools.protoc',
      `--descriptor_set_in=${rulesSet}`,
      '-Iproto',
      `-I${sitePackages}`,
      ...args,
    ]);

  const image = path.join(scratch, 'image.binpb');
  protoc(['--include_imports', '--include_source_info', `--descriptor_set_out=${image}`, ...ours]);
  run('node_modules/.bin/buf', [
    'lint',
    image,
    '--config',
    'proto/buf.yaml',
    ...ours.flatMap((name) => ['--path', name]),
  ]);

  rmSync('cli/src/gen', { recursive: true, force: true });
  mkdirSync('cli/src/gen');
  protoc([
    '--plugin=protoc-gen-es=node_modules/.bin/protoc-gen-es',
    '--es_out=cli/src/gen',
    '--es_opt=target=ts,import_extension=js',
    ...ours,
    ...statusProtos,
    rules,
  ]);

  // Python messages go beside the hand-written v1/__init__.py; the rules go below it, because a top-level package
  // `buf` of ours could shadow somebody else's.
  for (const name of readdirSync('backend-py/qscope/v1')) {
    if (/_pb2\.pyi?$/.test(name)) rmSync(path.join('backend-py/qscope/v1', name));
  }
  const pythonOut = path.join(scratch, 'python');
  mkdirSync(pythonOut);
  protoc([`--python_out=${pythonOut}`, `--pyi_out=${pythonOut}`, ...ours, rules]);
  copyRewritten(path.join(pythonOut, 'qscope/v1'), 'backend-py/qscope/v1');
  copyRewritten(path.join(pythonOut, 'buf/validate'), 'backend-py/qscope/v1/rules');
  // Texts made from the descriptors: static help pages, and the schema for editors.
  run('node_modules/.bin/tsc', ['-p', 'cli/tsconfig.generate.json']);
  const made = (name) => import(pathToFileURL(path.resolve('cli/dist/generate/experiment', name)).href);
  writeFileSync('cli/src/gen/help.ts', (await made('help.js')).helpModule());
  writeFileSync('configs/schema.json', (await made('schema.js')).experimentSchemaText());
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function withDependencies(files) {
  const seen = new Map();
  const visit = (file) => {
    for (const dependency of file.dependencies ?? []) visit(dependency);
    if (!seen.has(file.proto.name)) seen.set(file.proto.name, file.proto);
  };
  visit(file_buf_validate_validate);
  for (const file of files) if (!seen.has(file.name)) seen.set(file.name, file);
  return [...seen.values()];
}

function copyRewritten(from, to) {
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(from)) {
    const text = readFileSync(path.join(from, name), 'utf8').replaceAll(
      'from buf.validate import',
      'from qscope.v1.rules import',
    );
    writeFileSync(path.join(to, name), text);
  }
}
