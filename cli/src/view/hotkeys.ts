import { readFileSync } from 'node:fs';

const CTRL_C = '\x03';
const CTRL_Z = '\x1a';
const CTRL_BACKSLASH = '\x1c';

/**
 * Calls an action for each key until the returned function is called. Does nothing where stdin is no terminal or
 * belongs to another job: touching it there would stop this process.
 *
 * In raw mode the terminal no longer turns Ctrl-C, Ctrl-Z and Ctrl-\ into signals; they are raised here.
 */
export function listenForKeys(keys: Readonly<Record<string, () => void>>): () => void {
  const { stdin } = process;
  if (!stdin.isTTY) return () => {};
  const onData = (chunk: Buffer) => {
    for (const key of chunk.toString('latin1')) {
      if (key === CTRL_C) process.kill(process.pid, 'SIGINT');
      else if (key === CTRL_BACKSLASH) process.kill(process.pid, 'SIGQUIT');
      else if (key === CTRL_Z) suspend();
      else keys[key]?.();
    }
  };
  let listening = false;
  const enter = () => {
    if (listening || !ownsTerminal()) return;
    listening = true;
    stdin.setRawMode(true);
    stdin.on('data', onData);
    stdin.resume();
    // A run that has ended must not wait for a key.
    stdin.unref();
  };
  const leave = () => {
    if (!listening) return;
    listening = false;
    stdin.off('data', onData);
    stdin.pause();
    stdin.setRawMode(false);
  };
  const suspend = () => {
    leave();
    process.kill(0, 'SIGTSTP');
  };
  process.on('SIGCONT', enter);
  process.on('exit', leave);
  enter();
  return () => {
    leave();
    process.off('SIGCONT', enter);
    process.off('exit', leave);
  };
}

/** True when this process is in the foreground of its terminal; assumed where the system does not say. */
function ownsTerminal(): boolean {
  try {
    const stat = readFileSync('/proc/self/stat', 'utf8');
    // After the name: state, parent, process group, session, terminal, foreground process group.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[2] === fields[5];
  } catch {
    return true;
  }
}
