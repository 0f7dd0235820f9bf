/** The command that runs a task: "train_sae" is `train-sae`, "contrast_features" is `features contrast`. */
export function commandOf(task: string): string {
  if (task === 'eval_responses') return 'eval';
  if (task === 'apply_classifier') return 'classify apply';
  const [, verb] = /^(.+)_features$/.exec(task) ?? [];
  return (verb === undefined ? task : `features ${verb}`).replaceAll('_', '-');
}

/** The command that a run was started with; its own record names the task. */
export const commandOfRun = (run: { verb: string }): string => commandOf(run.verb.replaceAll('-', '_'));
