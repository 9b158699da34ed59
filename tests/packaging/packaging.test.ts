/** The package as users get it: packed, installed without a compiler, imported, type-checked, run. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { encode, qkv } from '../node/models.js';
import { install, ROOT, type Installed } from './installed-package.js';

const MAX_ARCHIVE_BYTES = 5e6;

const RUN = `
import 'ort-sigmoid-attention/node';
import ort from 'onnxruntime-node';
const session = await ort.InferenceSession.create('model.onnx');
const input = (heads) => new ort.Tensor('float32', new Float32Array(heads * 24).fill(0.5), [1, heads, 3, 8]);
const { Y } = await session.run({ Q: input(4), K: input(2), V: input(2) });
console.log(session.handler.constructor.name, Y.dims.join());
`;

const TYPES = `
import { convert, inspect, openModel, type Conversion, type Site } from 'ort-sigmoid-attention';
import { libraryPath, register } from 'ort-sigmoid-attention/node';
import { install } from 'ort-sigmoid-attention/web';
import * as ort from 'onnxruntime-web';

export function replaced(bytes: Uint8Array): number {
  const conversion: Conversion = convert(openModel(bytes), { mode: 'faithful' });
  const sites: readonly Site[] = inspect(openModel(bytes)).sites;
  return Math.min(conversion.replaced.length, sites.length);
}
// @ts-expect-error no such mode
export const wrong = (bytes: Uint8Array) => convert(openModel(bytes), { mode: 'quick' });
export const path: string = libraryPath();
register();
install(ort);
`;

describe('the installed package', function () {
  this.timeout(600_000);
  let installed: Installed;
  let home: string;

  before(() => {
    installed = install();
    home = join(installed.folder, 'node_modules/ort-sigmoid-attention');
    writeFileSync(join(installed.folder, 'model.onnx'), encode({ inputs: qkv() }));
    writeFileSync(join(installed.folder, 'run.mjs'), RUN);
  });
  after(() => {
    rmSync(dirname(installed.folder), { recursive: true, force: true });
  });

  const inFolder = (
    command: string,
    ...args: string[]
  ): { status: number | null; stdout: string; stderr: string } =>
    spawnSync(command, args, { cwd: installed.folder, env: installed.env, encoding: 'utf8' });

  it('is small and holds only what users need', () => {
    assert.ok(installed.archiveBytes < MAX_ARCHIVE_BYTES, `${installed.archiveBytes} bytes`);
    for (const path of ['tests', 'bench', 'examples', 'node_modules', 'tsconfig.json']) {
      assert.equal(existsSync(join(home, path)), false, path);
    }
    for (const path of ['LICENSE', 'README.md', 'CHANGELOG.md', 'package.json', 'dist', 'CMakeLists.txt']) {
      assert.ok(existsSync(join(home, path)), path);
    }
  });

  it('says where its native files come from', () => {
    const folder = join(home, 'prebuilds', `${process.platform}-${process.arch}`);
    const { files, sources, compiler } = JSON.parse(
      readFileSync(join(folder, 'PROVENANCE.json'), 'utf8'),
    ) as {
      files: Record<string, string>;
      sources: string;
      compiler: string;
    };
    assert.match(sources, /^[0-9a-f]{64}$/);
    assert.notEqual(compiler, '');
    assert.equal(Object.keys(files).length, 2);
    for (const [file, digest] of Object.entries(files)) {
      assert.equal(
        createHash('sha256')
          .update(readFileSync(join(folder, file)))
          .digest('hex'),
        digest,
        file,
      );
    }
  });

  it('runs a model with the prebuilt kernel', () => {
    assert.notEqual(inFolder('sh', '-c', 'command -v c++ || command -v gcc || command -v cmake').status, 0);
    const { status, stdout, stderr } = inFolder('node', 'run.mjs');
    assert.equal(stdout.trim(), 'SigmoidSessionHandler 1,4,3,8', stderr);
    assert.equal(status, 0, stderr);
  });

  it('has a command line', () => {
    const library = inFolder('npx', '--no', 'sigmoid-attention', 'library');
    assert.equal(library.status, 0, library.stderr);
    assert.ok(existsSync(library.stdout.trim()), library.stdout);
    const inspection = inFolder('npx', '--no', 'sigmoid-attention', 'inspect', 'model.onnx', '--json');
    assert.equal(inspection.status, 0, inspection.stderr);
    assert.deepEqual((JSON.parse(inspection.stdout) as { sites: unknown[] }).sites, []);
  });

  it('has types for every entry, with Node resolution and with that of bundlers', () => {
    writeFileSync(join(installed.folder, 'consumer.ts'), TYPES);
    const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
    for (const [module, resolution] of [
      ['nodenext', 'nodenext'],
      ['esnext', 'bundler'],
    ]) {
      const options = ['--noEmit', '--strict', '--target', 'es2022', '--lib', 'es2023,dom', '--skipLibCheck'];
      const { stdout, status } = inFolder(
        'node',
        tsc,
        ...options,
        ...['--module', module!, '--moduleResolution', resolution!, 'consumer.ts'],
      );
      assert.equal(status, 0, `${resolution}: ${stdout}`);
    }
  });

  it('says what to do where no prebuilt file fits, and builds from its sources', function () {
    const prebuilds = join(home, 'prebuilds');
    renameSync(prebuilds, `${prebuilds}.away`);
    try {
      const { status, stderr } = inFolder('node', 'run.mjs');
      assert.notEqual(status, 0);
      assert.match(
        stderr,
        /has no native library for .*; build it with 'node scripts\/setup\.mjs native' in /,
      );
      if (!existsSync(join(ROOT, 'build/onnxruntime-headers'))) {
        console.log('      building from source skipped: no headers of ONNX Runtime at hand (150 MB)');
        return;
      }
      mkdirSync(join(home, 'build'));
      cpSync(join(ROOT, 'build/onnxruntime-headers'), join(home, 'build/onnxruntime-headers'), {
        recursive: true,
      });
      execFileSync('node', ['scripts/setup.mjs', 'native'], { cwd: home, stdio: 'pipe' });
      assert.equal(inFolder('node', 'run.mjs').stdout.trim(), 'SigmoidSessionHandler 1,4,3,8');
    } finally {
      rmSync(join(home, 'build'), { recursive: true, force: true });
      renameSync(`${prebuilds}.away`, prebuilds);
    }
  });
});
