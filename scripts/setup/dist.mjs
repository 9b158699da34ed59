// Stage dist: compiles the package, so that its command line and its exports work in a checkout.
import { existsSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { digest, run, stampIs, writeStamp } from './run.mjs';

const SOURCES = ['op', 'wgsl', 'converter'];

/** @param {string} root */
function sources(root) {
  return SOURCES.flatMap((folder) =>
    readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
      .map((entry) => join(entry.parentPath ?? entry.path, entry.name)),
  ).sort();
}

/** @param {string} root */
export function buildDist(root) {
  const configuration = ['package-lock.json', 'tsconfig.json', 'tsconfig.build.json'];
  const files = [...configuration.map((name) => join(root, name)), ...sources(root)];
  const state = digest(...files.flatMap((file) => [file, readFileSync(file)]));
  const stamp = join(root, 'build/.dist-stamp');
  if (existsSync(join(root, 'dist/converter/cli/main.js')) && stampIs(stamp, state)) return;
  console.log('setup: compiling the package');
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  run('npm', ['run', '--silent', 'build'], { cwd: root });
  writeStamp(stamp, state);
}
