import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ExperimentError } from '../../src/experiment/diagnostic.js';
import { type LoadedExperiment, type LoadOptions, loadExperiment } from '../../src/experiment/load.js';

/** A folder of files that a test loads from, removed by `remove`. */
export class Files {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'qscope-experiment-'));

  write(name: string, content: string | Uint8Array): string {
    const file = path.join(this.folder, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, content);
    return name;
  }

  load(names: string | string[], options: LoadOptions = {}): Promise<LoadedExperiment> {
    return loadExperiment([names].flat(), { cwd: this.folder, environment: {}, ...options });
  }

  /** The faults, one a line: `LINE:COLUMN path: message (suggestion)`, with the file where it is not e.yaml. */
  async faults(content: string | Uint8Array, options: LoadOptions = {}): Promise<string> {
    return this.faultsOf(this.write('e.yaml', content), options);
  }

  async faultsOf(names: string | string[], options: LoadOptions = {}): Promise<string> {
    try {
      await this.load(names, options);
    } catch (error) {
      if (!(error instanceof ExperimentError)) throw error;
      if (error.exitCode !== 65) throw new Error(`exit code ${error.exitCode}`);
      return error.diagnostics
        .map(({ file, line, column, path: field, message, suggestion }) => {
          const place = `${file === 'e.yaml' ? '' : `${file}:`}${line}:${column}`;
          return `${place} ${field === '' ? '' : `${field}: `}${message}${suggestion ? ` (${suggestion})` : ''}`;
        })
        .join('\n');
    }
    return 'valid';
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
