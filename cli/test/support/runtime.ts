import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, vi } from 'vitest';

/** A runtime folder for each test of a file, in which a script may take the place of Python. */
export class RuntimeFolder {
  path = '';

  constructor() {
    beforeEach(() => {
      this.path = mkdtempSync(join(tmpdir(), 'qs-'));
      vi.stubEnv('XDG_RUNTIME_DIR', this.path);
    });
    afterEach(() => {
      vi.unstubAllEnvs();
      rmSync(this.path, { recursive: true, force: true });
    });
  }

  /** Writes a shell script and returns its path. */
  program(script: string): string {
    const path = join(this.path, 'python');
    writeFileSync(path, `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
    return path;
  }
}
