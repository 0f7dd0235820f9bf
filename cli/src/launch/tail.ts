import { type FileHandle, open } from 'node:fs/promises';
import { StringDecoder } from 'node:string_decoder';
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 500;

/**
 * The lines of a growing file, until `hasEnded` says that no more will come and all are read. A file that is not there
 * yet counts as empty. A last line without a newline is handed out at the end.
 */
export async function* tailLines(
  path: string,
  hasEnded: () => Promise<boolean>,
  signal?: AbortSignal,
): AsyncGenerator<string, void, undefined> {
  const decoder = new StringDecoder('utf8');
  const buffer = Buffer.alloc(64 * 1024);
  let file: FileHandle | undefined;
  let rest = '';
  try {
    while (!signal?.aborted) {
      // Asked before reading: what was written until then is read below.
      const ended = await hasEnded();
      file ??= await openIfThere(path);
      for (;;) {
        const { bytesRead } = (await file?.read(buffer, 0, buffer.length)) ?? { bytesRead: 0 };
        if (bytesRead === 0) break;
        const lines = (rest + decoder.write(buffer.subarray(0, bytesRead))).split('\n');
        rest = lines.pop() ?? '';
        yield* lines;
      }
      if (ended) break;
      await sleep(POLL_MS, undefined, signal ? { signal } : {}).catch(() => {});
    }
    if (rest) yield rest;
  } finally {
    await file?.close();
  }
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
