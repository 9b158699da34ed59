/** Runs a scenario of tests/stress/scenarios in a Node process of its own and reads the one JSON line that it prints. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';

export interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stderr: string;
  /** What the scenario printed; null when it printed nothing. */
  readonly result: Readonly<Record<string, number>> | null;
}

export function scenario(name: string, ...args: (string | number)[]): Promise<Outcome> {
  const file = join(import.meta.dirname, 'scenarios', `${name}.ts`);
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--expose-gc', '--import', 'tsx', file, ...args.map(String)]);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (text: Buffer) => (stdout += text.toString()));
    child.stderr.on('data', (text: Buffer) => (stderr += text.toString()));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      const line = stdout.trim().split('\n').at(-1);
      const result = line ? (JSON.parse(line) as Record<string, number>) : null;
      resolve({ code, signal, stderr, result });
    });
  });
}
