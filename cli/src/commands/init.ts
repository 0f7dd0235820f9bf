import { type Command, InvalidArgumentError, Option } from '../commander.js';
import type { Preset } from '../experiment/presets.js';

export interface InitOptions {
  output?: string;
  force: boolean;
}

/** The names of the presets, as `--help` needs them without reading the presets themselves. */
export const PRESET_NAMES = {
  sft: ['sasft', 'official-code', 'plain'],
  rl: ['dapo-rare-negative', 'dapo', 'grpo'],
} as const;

/** `qscope VERB init`: writes a first file of the verb. */
export function withInit(command: Command, task: keyof typeof PRESET_NAMES): void {
  const names: readonly string[] = PRESET_NAMES[task];
  const preset = new Option('--preset <name>', `what it begins with: ${names.join(', ')}`)
    .default(names[0])
    .argParser((given: string) => {
      if (!names.includes(given)) throw new InvalidArgumentError(`Allowed choices are ${names.join(', ')}.`);
      return given;
    });
  command
    .command('init')
    .description('write a commented experiment file with every field')
    .addOption(preset)
    .option('-o, --output <file>', 'file to write; without it the text goes to stdout')
    .option('--force', 'overwrite the file', false)
    .action(async ({ preset, ...options }: InitOptions & { preset: string }) => {
      const { presets } = await import('../experiment/presets.js');
      const { writeTemplate } = await import('./write-template.js');
      const all: Readonly<Record<string, Preset>> = presets[task];
      await writeTemplate(task, options, all[preset]);
    });
}
