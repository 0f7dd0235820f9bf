import { spawn } from 'node:child_process';

/** What opens a file with the program the user chose for its kind. */
const OPENERS: Readonly<Partial<Record<NodeJS.Platform, readonly string[]>>> = {
  darwin: ['open'],
  win32: ['cmd', '/c', 'start', ''],
};
const ELSEWHERE = ['xdg-open'];

/** Opens a file for the user to look at; the program that shows it outlives this one. Resolves to false when none starts. */
export function openFile(path: string): Promise<boolean> {
  const [command, ...args] = OPENERS[process.platform] ?? ELSEWHERE;
  const child = spawn(command as string, [...args, path], { stdio: 'ignore', detached: true });
  return new Promise((resolve) => {
    child.once('error', () => resolve(false));
    child.once('spawn', () => {
      child.unref();
      resolve(true);
    });
  });
}
