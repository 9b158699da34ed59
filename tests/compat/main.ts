/**
 * `npm run test:compat`: every version of ONNX Runtime that is supported, on every version of Node, runs models with and
 * without the portable function, and models of a newer operator version. Packages come from npm into .cache/compat.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { compatModels, type CompatModel } from './models.js';

const ORT_VERSIONS = ['1.24', '1.27', '1.29', '1.30'];
/** The floor's neighbour: what happens there is documented, not supported. */
const BELOW_FLOOR = '1.23';
const NODE_VERSIONS = ['20', '22', '24'];
const TOLERANCE = 1e-5;

const root = join(import.meta.dirname, '../..');
const cache = join(root, '.cache/compat');

interface Line {
  readonly name: string;
  readonly handler?: string;
  readonly Y?: readonly number[];
  readonly error?: string;
  readonly node?: string;
  readonly ort?: string;
}

function installed(folder: string, packages: readonly string[]): string {
  const place = join(cache, folder);
  if (existsSync(join(place, 'installed'))) return place;
  mkdirSync(place, { recursive: true });
  writeFileSync(join(place, 'package.json'), '{ "private": true }\n');
  const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', '--silent'];
  execFileSync('npm', ['install', ...options, ...packages], {
    cwd: place,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  writeFileSync(join(place, 'installed'), packages.join('\n'));
  return place;
}

/** A Node of a version: this one where it fits, else the binary in npm's package. */
function nodeOf(version: string): string {
  if (process.versions.node.split('.')[0] === version) return process.execPath;
  const name = `node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`;
  const place = installed(`node-${version}`, [`${name}@${version}`]);
  return join(place, 'node_modules', name, 'bin', process.platform === 'win32' ? 'node.exe' : 'node');
}

function judge({ name, expected }: CompatModel, line: Line | undefined): string | null {
  if (line === undefined) return `${name}: nothing was printed`;
  if ('error' in expected) {
    return expected.error.test(line.error ?? '')
      ? null
      : `${name}: ${line.error ?? `ran with ${line.handler}`}`;
  }
  if (line.error !== undefined) return `${name}: ${line.error}`;
  if (line.handler === undefined || !expected.handlers.includes(line.handler))
    return `${name}: ran with ${line.handler}`;
  const worst = Math.max(...expected.Y.map((value, i) => Math.abs(value - line.Y![i]!)));
  return worst <= TOLERANCE ? null : `${name}: Y differs by ${worst}`;
}

const models = compatModels();
mkdirSync(cache, { recursive: true });
const modelsFile = join(cache, 'models.json');
writeFileSync(modelsFile, JSON.stringify(models.map(({ name, model, feeds }) => ({ name, model, feeds }))));

let passed = 0;
let failed = 0;
for (const version of [...ORT_VERSIONS, BELOW_FLOOR]) {
  const place = installed(`ort-${version}`, [`onnxruntime-node@${version}`]);
  await build({
    entryPoints: [join(import.meta.dirname, 'smoke.ts')],
    outfile: join(place, 'smoke.mjs'),
    bundle: true,
    format: 'esm',
    platform: 'node',
    external: ['onnxruntime-node', 'onnxruntime-common'],
    logLevel: 'error',
  });
  for (const node of version === BELOW_FLOOR ? ['20'] : NODE_VERSIONS) {
    const run = spawnSync(nodeOf(node), [join(place, 'smoke.mjs'), modelsFile], { encoding: 'utf8' });
    const lines = run.stdout
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Line);
    const versions = lines.at(-1);
    const title = `onnxruntime-node ${versions?.ort ?? version}, Node ${versions?.node ?? node}`;
    if (version === BELOW_FLOOR) {
      const ways = lines
        .filter(({ name }) => name !== 'versions')
        .map(({ name, handler, error }) => `${name}: ${handler ?? error}`);
      console.log(
        `below the floor, ${title}: ${ways.join('; ')}${run.status === 0 ? '' : ` (ended with ${run.status ?? run.signal})`}`,
      );
      continue;
    }
    const problems = models
      .map((model) =>
        judge(
          model,
          lines.find(({ name }) => name === model.name),
        ),
      )
      .filter((problem) => problem !== null);
    if (run.status !== 0) problems.push(`ended with ${run.status ?? run.signal}: ${run.stderr.slice(-600)}`);
    if (problems.length === 0) passed++;
    else failed++;
    console.log(
      `${problems.length === 0 ? 'ok  ' : 'FAIL'} ${title}${problems.map((problem) => `\n       ${problem}`).join('')}`,
    );
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
