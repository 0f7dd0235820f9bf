import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RealSandbox, SMALL } from './small.js';

const HEAD = `seed: 1
model: embedded
compute: { threads: 1 }
`;
const TEXT = '{ source: embedded-heldout, context: 64 }';

const CONTRAST = `name: contrast
${HEAD}contrast_features:
  sae: SAES
  positives: { source: embedded-heldout, where: language=zh, context: 64 }
  negatives: { source: embedded-heldout, where: language!=zh, context: 64 }
  documents: 60
  top: 2
  label: Chinese
`;
const EXPLAIN = `name: explain
${HEAD}explain_features:
  sae: SAES
  feature_set: FEATURES
  text: ${TEXT}
  documents: 200
  shown: 6
  tested: 6
`;
const LOOPS = `name: loops
${HEAD}repetition_features:
  sae: SAES
  text: ${TEXT}
  loops: made
  documents: 40
  top: 2
`;

interface Explanation {
  layer: number;
  feature: number;
  label: string;
  balanced_accuracy?: number;
}

describe('from a contrast to labels and a page, on the embedded model', () => {
  const box = new RealSandbox();
  let saes: string;
  beforeAll(async () => {
    const { code, stderr } = await box.run(['train-sae', box.experiment(SMALL), '--json']);
    expect(code, stderr).toBe(0);
    saes = join(box.runFolder(), 'artifacts/sae/native');
  });
  afterAll(() => box.remove());

  const folderOf = (name: string) => box.runFolders().find((folder) => folder.includes(`${name}-`)) as string;
  const json = (...path: string[]) => JSON.parse(readFileSync(join(...path), 'utf8'));

  it('labels what a contrast found, and later verbs take the labels', async () => {
    const contrast = await box.run(['features', 'contrast', box.experiment(CONTRAST.replace('SAES', saes), 'a.yaml')]);
    expect(contrast.code, contrast.stderr).toBe(0);
    const features = join(folderOf('contrast'), 'artifacts/features.json');
    expect(json(features).entries.map((entry: Explanation) => entry.label)).toEqual(Array(4).fill('Chinese'));

    const file = box.experiment(EXPLAIN.replace('SAES', saes).replace('FEATURES', features), 'b.yaml');
    const explain = await box.run(['features', 'explain', file]);
    expect(explain.code, explain.stderr).toBe(0);
    expect(explain.stderr).toMatch(/^feature +score +95 % +other +n +label$/m);
    for (const line of explain.stderr.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
    const found = json(folderOf('explain'), 'artifacts/explanations.json').explanations as Explanation[];
    expect(found).toHaveLength(4);
    const named = json(folderOf('explain'), 'artifacts/features.json').entries as Explanation[];
    for (const { layer, feature, label } of named) {
      const own = found.find((one) => one.layer === layer && one.feature === feature);
      expect(label).toBe(own?.label || 'Chinese');
    }
    // What stands for Chinese is told from other text by its characters.
    expect(Math.max(...found.map((one) => one.balanced_accuracy ?? 0))).toBeGreaterThan(0.6);

    const page = await box.run(['report', folderOf('explain')]);
    expect(page.code, page.stderr).toBe(0);
    expect(readFileSync(join(folderOf('explain'), 'report.html'), 'utf8')).toContain('fires on');
  });

  it('shows what a feature does where a loop begins', async () => {
    const loops = await box.run(['features', 'repetition', box.experiment(LOOPS.replace('SAES', saes), 'c.yaml')]);
    expect(loops.code, loops.stderr).toBe(0);
    expect(loops.stderr).toContain('mean activation around the onset of held-out loops');
    const { onset } = json(folderOf('loops'), 'artifacts/repetition.json');
    expect(onset.map((one: { layer: number }) => one.layer)).toEqual([1, 4]);
    expect(onset[0].loops.offset_W).toEqual(Array.from({ length: 80 }, (_, index) => index - 16));
    const page = await box.run(['report', folderOf('loops')]);
    expect(page.code, page.stderr).toBe(0);
    expect(readFileSync(join(folderOf('loops'), 'report.html'), 'utf8')).toContain('Around the onset');
  });

  it('says what is missing before it reads anything', async () => {
    const endpoint = `${EXPLAIN.replace('SAES', saes).replace('  feature_set: FEATURES', '  features: [1/3]')}  writer: endpoint\n`;
    const without = await box.run(['features', 'explain', box.experiment(endpoint, 'd.yaml')]);
    expect(without.code).toBe(65);
    expect(without.stderr).toContain('writer: endpoint needs endpoint.url and endpoint.model');
    const key = `${endpoint}  endpoint: { url: "http://127.0.0.1:9/v1", model: m, api_key_variable: NO_SUCH_KEY }\n`;
    const unset = await box.run(['features', 'explain', box.experiment(key, 'e.yaml')]);
    expect(unset.code).not.toBe(0);
    expect(unset.stderr).toContain('The variable NO_SUCH_KEY holds no key.');
    const nothing = EXPLAIN.replace('SAES', saes).replace('  feature_set: FEATURES\n', '');
    const empty = await box.run(['features', 'explain', box.experiment(nothing, 'f.yaml')]);
    expect(empty.code).toBe(65);
    expect(empty.stderr).toContain('name features, or a feature_set');
  });
});
