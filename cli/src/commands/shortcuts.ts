import { type Command, InvalidArgumentError, Option } from '../commander.js';
import { ExitCode, UserError } from '../errors.js';
import type { OptionSetting } from '../experiment/overlay.js';

/** Options of `sft` that stand for a `--set`. */
export interface SftShortcuts {
  saeLoss?: boolean;
  arm?: string;
}

/** Options of `rl` that stand for a `--set`. */
export interface RlShortcuts {
  saePenalty?: string;
  control?: string;
}

const ARMS = ['sae', 'plain', 'random-features', 'kl', 'entropy', 'filter', 'token-probability'];
const PENALTIES = ['none', 'rare-negative', 'reward'];
const CONTROLS = ['no-rare-negative', 'pasted', 'random-features'];

export function withSftShortcuts(command: Command): Command {
  return command
    .addOption(new Option('--sae-loss', 'train with the SAE loss of the file (as --arm sae)').conflicts('arm'))
    .addOption(named('--arm <name>', 'train this instead', ARMS));
}

export function withRlShortcuts(command: Command): Command {
  return command
    .addOption(named('--sae-penalty <mode>', 'what SAE features do', PENALTIES))
    .addOption(named('--control <name>', 'train a control of rare negatives', CONTROLS));
}

/** What the options ask for; each fault of it carries the name of its option. */
export function sftSettings({ saeLoss, arm }: SftShortcuts): OptionSetting[] {
  if (saeLoss) return [{ option: '--sae-loss', setting: 'sft.arm=sae' }];
  return arm === undefined ? [] : [{ option: '--arm', setting: `sft.arm=${inFiles(arm)}` }];
}

/** What the options ask for; each fault of it carries the name of its option. */
export function rlSettings({ saePenalty, control }: RlShortcuts): OptionSetting[] {
  if (saePenalty && control && saePenalty !== 'rare-negative') {
    throw new UserError(`--control ${control} is a control of rare negatives, not of --sae-penalty ${saePenalty}.`, {
      hint: 'Leave one of the two out.',
      exitCode: ExitCode.usage,
    });
  }
  const settings: OptionSetting[] = [];
  const give = (option: string, setting: string) => settings.push({ option, setting: `rl.sae_penalty.${setting}` });
  if (saePenalty) give('--sae-penalty', `mode=${inFiles(saePenalty)}`);
  if (control === 'no-rare-negative') give('--control', 'mode=none');
  else if (control) {
    give('--control', 'mode=rare_negative');
    give('--control', `rare_negative.source=${inFiles(control)}`);
  }
  return settings;
}

/** An option with a few values; files write them with underscores, which is understood here too. */
function named(flags: string, doc: string, values: readonly string[]): Option {
  return new Option(flags, `${doc}: ${values.join(', ')}`).argParser((given: string) => {
    const value = given.toLowerCase().replaceAll('_', '-');
    if (!values.includes(value)) throw new InvalidArgumentError(`Allowed choices are ${values.join(', ')}.`);
    return value;
  });
}

function inFiles(value: string): string {
  return value.replaceAll('-', '_');
}
