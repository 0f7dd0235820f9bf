import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PRESET_NAMES } from '../../src/commands/init.js';
import { presets } from '../../src/experiment/presets.js';
import { Sandbox } from '../support/cli.js';

let sandbox: Sandbox;
beforeAll(() => {
  sandbox = new Sandbox();
  const data = 'model: embedded\nsft:\n  data: { source: rows.jsonl }\n';
  writeFileSync(join(sandbox.folder, 'plain.yaml'), data);
  writeFileSync(
    join(sandbox.folder, 'sft.yaml'),
    `${data}  sae_loss: { sae: latest, features: latest, target_languages: [zh] }\n`,
  );
  const rl =
    'model: embedded\nrl:\n  prompts: { source: rows.jsonl }\n  rewards: [{ kind: answer }, { kind: repetition }]\n';
  writeFileSync(join(sandbox.folder, 'dapo.yaml'), rl);
  writeFileSync(
    join(sandbox.folder, 'rl.yaml'),
    `${rl}  sae_penalty: { sae: latest, rare_negative: { feature_set: latest } }\n`,
  );
});
afterAll(() => sandbox.remove());

const shown = async (...args: string[]) => {
  const { stdout, stderr, code } = await sandbox.run(['config', 'show', ...args]);
  expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
  return stdout
    .split('\n')
    .filter((line) => / # --/.test(line))
    .map((line) => line.trim());
};

describe('short forms', () => {
  test.each([
    [['sft.yaml', '--sae-loss'], ['arm: sae # --sae-loss']],
    [['sft.yaml', '--arm', 'plain'], ['arm: plain # --arm']],
    [['sft.yaml', '--arm', 'random-features'], ['arm: random_features # --arm']],
    [['sft.yaml', '--arm', 'token_probability'], ['arm: token_probability # --arm']],
    [['rl.yaml', '--sae-penalty', 'rare-negative'], ['mode: rare_negative # --sae-penalty']],
    [['rl.yaml', '--control', 'no-rare-negative'], ['mode: none # --control']],
    [
      ['dapo.yaml', '--control', 'pasted'],
      ['mode: rare_negative # --control', 'source: pasted # --control'],
    ],
    [
      ['rl.yaml', '--sae-penalty', 'rare-negative', '--control', 'random-features'],
      ['mode: rare_negative # --control', 'source: random_features # --control'],
    ],
    // What is written out goes over what is short.
    [['sft.yaml', '--arm', 'kl', '--set', 'sft.arm=entropy'], ['arm: entropy # --set']],
  ])('%j is seen in config show', async (args, lines) => {
    expect(await shown(...args)).toEqual(lines);
  });

  test.each([
    ['sft', ['plain.yaml', '--sae-loss'], 65, '--sae-loss:1:9 sft.arm: the SAE loss needs sft.sae_loss'],
    ['sft', ['plain.yaml', '--arm', 'sae'], 65, '--arm:1:9 sft.arm: the SAE loss needs sft.sae_loss'],
    ['sft', ['plain.yaml', '--arm', 'filter'], 65, '--arm:1:1 sft: random_features, filter and token_probability'],
    [
      'sft',
      ['sft.yaml', '--arm', 'saft'],
      2,
      "option '--arm <name>' argument 'saft' is invalid. Allowed choices are sae,",
    ],
    [
      'sft',
      ['sft.yaml', '--sae-loss', '--arm', 'kl'],
      2,
      "option '--sae-loss' cannot be used with option '--arm <name>'",
    ],
    ['rl', ['dapo.yaml', '--sae-penalty', 'reward'], 65, '--sae-penalty:1:1 rl: sae_penalty needs sae, and features'],
    ['rl', ['dapo.yaml', '--control', 'random-features'], 65, '--control:1:1 rl: sae_penalty needs sae, and features'],
    ['rl', ['rl.yaml', '--control', 'none'], 2, "option '--control <name>' argument 'none' is invalid."],
    [
      'rl',
      ['rl.yaml', '--sae-penalty', 'reward', '--control', 'pasted'],
      2,
      '--control pasted is a control of rare negatives',
    ],
    ['rl', ['sft.yaml', '--control', 'pasted'], 65, '--control:1:1 rl: only one of sft and rl may be given'],
    ['rl', ['sft.yaml'], 65, 'this is an experiment for qscope sft, not for qscope rl'],
  ])('%s %j is refused by the name of the option', async (verb, args, exit, message) => {
    const { stdout, stderr, code } = await sandbox.run([verb, ...args]);
    expect(stderr).toContain(message);
    expect({ stdout, code }).toEqual({ stdout: '', code: exit });
  });

  test('an arm in a file needs what one of the command line needs', async () => {
    writeFileSync(join(sandbox.folder, 'bare.yaml'), 'model: embedded\nsft:\n  data: {source: a.jsonl}\n  arm: sae\n');
    const { stderr, code } = await sandbox.run(['config', 'check', 'bare.yaml']);
    expect(stderr).toContain('bare.yaml:4:8 sft.arm: the SAE loss needs sft.sae_loss');
    expect(code).toBe(65);
    expect((await sandbox.run(['config', 'check', 'plain.yaml'])).code).toBe(0);
  });
});

describe('--dry-run', () => {
  test('shows the plan, with what is asked for, and starts nothing', async () => {
    const { stdout, stderr, code } = await sandbox.run(['sft', 'sft.yaml', '--arm', 'kl', '--dry-run']);
    expect(stdout).toMatch(/^arm {2}4\n\nsample 1 of 1: row 0, .*\n {2}question answer\n {10}\^{7}\n/);
    expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
    expect(existsSync(sandbox.runs)).toBe(false);
    expect(stdout).toBe((await sandbox.run(['plan', 'sft.yaml', '--set', 'sft.arm=kl'])).stdout);
  });

  test('--json is the plan as one object', async () => {
    const { stdout } = await sandbox.run(['sft', 'sft.yaml', '--dry-run', '--json']);
    expect(JSON.parse(stdout).samples[0].segments[1]).toEqual({ text: ' answer', answer: true });
  });

  test('an experiment of another verb is refused', async () => {
    const { stderr, code } = await sandbox.run(['rl', 'sft.yaml', '--dry-run']);
    expect(stderr).toContain('not for qscope rl');
    expect(code).toBe(65);
  });
});

describe('init', () => {
  test('the presets of the help are those there are', () => {
    const all = Object.fromEntries(Object.entries(presets).map(([task, of]) => [task, Object.keys(of)]));
    expect(all).toEqual(PRESET_NAMES);
  });

  const every = Object.entries(PRESET_NAMES).flatMap(([verb, names]) => names.map((name) => [verb, name] as const));
  test.each(every)('%s init --preset %s writes a file that is valid, and once', async (verb, preset) => {
    const file = `${verb}-${preset}.yaml`;
    const first = await sandbox.run([verb, 'init', '--preset', preset, '-o', file]);
    expect(first).toEqual({
      stdout: '',
      stderr: `Wrote ${file}. Check it with: qscope config check ${file}\n`,
      code: 0,
    });
    const text = readFileSync(join(sandbox.folder, file), 'utf8');
    expect(text.split('\n').find((line) => line.includes('Run it'))).toBe(`# Run it: qscope ${verb} ${file}`);
    expect((await sandbox.run(['config', 'check', file])).code).toBe(0);
    const again = await sandbox.run([verb, 'init', '-o', file]);
    expect(again).toEqual({ stdout: '', stderr: `${file} exists already.\nOverwrite it with --force.\n`, code: 2 });
    expect(readFileSync(join(sandbox.folder, file), 'utf8')).toBe(text);
  });

  test('without a file the text goes to stdout, and config init writes the first preset', async () => {
    const { stdout, code } = await sandbox.run(['rl', 'init']);
    expect(code).toBe(0);
    expect(stdout).toContain('# DAPO with rare negatives');
    expect(stdout).toContain('    mode: rare_negative\n');
    const plain = (await sandbox.run(['config', 'init', 'rl'])).stdout;
    expect(plain.split('\n\n').slice(1)).toEqual(stdout.split('\n\n').slice(1));
  });

  test.each([
    ['sasft', ['warmup_steps: 100', 'preset: global_tokens', 'weight: 0.016']],
    ['official-code', ['preset: official_code', 'weight: 0.0005', 'accumulate: 32', 'micro_batch_rows: 1']],
    ['plain', ['arm: plain']],
  ])('sft %s', async (preset, lines) => {
    const { stdout } = await sandbox.run(['sft', 'init', '--preset', preset]);
    for (const line of lines) expect(stdout).toMatch(new RegExp(`^ *${line}$`, 'm'));
    expect(stdout.includes('sae_loss:')).toBe(preset !== 'plain');
  });

  test.each([
    ['dapo', ['epsilon_high: 0.28', 'enabled: true', 'dual_clip: 0', 'mode: soft', 'mode: none']],
    ['grpo', ['epsilon_high: 0.2', 'enabled: false', 'dual_clip: 0', 'mode: none']],
  ])('rl %s', async (preset, lines) => {
    const { stdout } = await sandbox.run(['rl', 'init', '--preset', preset]);
    for (const line of lines) expect(stdout).toMatch(new RegExp(`^ *${line}$`, 'm'));
    expect(stdout).not.toMatch(/^ *mode: rare_negative/m);
  });

  test('an unknown preset is refused with the known ones', async () => {
    const { stderr, code } = await sandbox.run(['rl', 'init', '--preset', 'gpro']);
    expect(stderr).toContain("argument 'gpro' is invalid. Allowed choices are dapo-rare-negative, dapo, grpo.");
    expect(code).toBe(2);
  });
});
