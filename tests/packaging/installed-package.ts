/** Packs the package and installs it, with the newest onnxruntime-node, into an empty folder that has no compiler. */
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

export const ROOT = join(import.meta.dirname, '../..');

export interface Installed {
  readonly archive: string;
  readonly archiveBytes: number;
  /** The empty folder: a package of its own that depends on ours. */
  readonly folder: string;
  /** Environment whose PATH has Node and what npm needs, but neither a compiler nor CMake. */
  readonly env: NodeJS.ProcessEnv;
}

const PROGRAMS = ['node', 'npm', 'npx', 'sh', 'env', 'uname', 'tar'];

/** `npm pack` with everything it builds, in `folder`; the path of the archive. */
export function pack(folder: string): string {
  mkdirSync(folder, { recursive: true });
  execFileSync('npm', ['pack', '--silent', '--pack-destination', folder], { cwd: ROOT, stdio: 'pipe' });
  const archive = readdirSync(folder).find((name) => name.endsWith('.tgz'));
  if (archive === undefined) throw new Error(`npm pack left no archive in ${folder}`);
  return join(folder, archive);
}

export function install(): Installed {
  const work = realpathSync(mkdtempSync(join(tmpdir(), 'installed-')));
  const archive = pack(join(work, 'pack'));
  const programs = join(work, 'bin');
  mkdirSync(programs);
  for (const name of PROGRAMS) {
    const found = (process.env['PATH'] ?? '')
      .split(delimiter)
      .map((place) => join(place, name))
      .find((path) => statSync(path, { throwIfNoEntry: false }) !== undefined);
    if (found !== undefined) symlinkSync(realpathSync(found), join(programs, name));
  }
  const env = { ...process.env, PATH: programs };
  const folder = join(work, 'app');
  mkdirSync(folder);
  writeFileSync(join(folder, 'package.json'), '{ "name": "app", "version": "1.0.0", "type": "module" }\n');
  const packages = [archive, 'onnxruntime-node@1.30', 'onnxruntime-web@1.30'];
  execFileSync(
    'npm',
    ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', ...packages],
    {
      cwd: folder,
      env,
      stdio: 'pipe',
    },
  );
  return { archive, archiveBytes: statSync(archive).size, folder, env };
}
