/**
 * What README, CONTRIBUTING and docs/ show is run: `sh` blocks command by command (this package's own command line for real;
 * of npm, npx and node commands, that the script or file exists), `js` and `ts` blocks that use onnxruntime-node are run,
 * those for the browser are compiled against this package. All blocks of a document run in order in one folder that has
 * `model.onnx`, `converted.onnx`, `out.onnx` and `samples/`. Blocks in other languages must be `text`, `json` or said to be untested.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { convert, openModel } from '../../converter/index.js';
import { sampleInputs, sampleModel } from './sample-model.js';
import { documents, snippets, type Snippet } from './snippets.js';

const ROOT = join(import.meta.dirname, '../..');
const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
const CLI = join(ROOT, 'converter/cli/main.ts');
const SHOWN_ONLY = new Set(['text', 'json', '']);

const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>;
};

/** Commands of a block: comments and prompts away, continued lines joined. */
function commands(code: string): string[] {
  const lines = code.replace(/\\\n\s*/g, '').split('\n');
  return lines.map((line) => line.replace(/\s+#.*$|^#.*$/, '').trim()).filter((line) => line !== '');
}

function runCommand(command: string, folder: string, where: string): void {
  for (const part of command.split('&&').map((text) => text.trim())) {
    const [program, ...args] = part.split(/\s+/).map((word) => word.replace(/^'(.*)'$/, '$1'));
    const [first = '', ...rest] = args;
    if (program === 'npx' && first === 'sigmoid-attention') {
      const { status, stderr } = spawnSync(process.execPath, ['--import', TSX, CLI, ...rest], {
        cwd: folder,
        encoding: 'utf8',
      });
      assert.equal(status, 0, `${where}: '${part}' ended with ${status}\n${stderr}`);
    } else if (program === 'npm') {
      const script = first === 'run' ? rest[0]! : first;
      const isBuiltIn = ['install', 'ci', 'pack'].includes(script);
      assert.ok(isBuiltIn || scripts[script] !== undefined, `${where}: there is no script '${script}'`);
    } else if (program === 'npx' && first === 'mocha') {
      for (const path of rest.filter((arg) => !arg.includes('*')))
        assert.ok(existsSync(join(ROOT, path)), `${where}: ${path}`);
    } else if (program === 'node') {
      assert.ok(existsSync(join(ROOT, first)), `${where}: there is no file ${first}`);
    } else assert.fail(`${where}: '${program}' is not a program that this test knows`);
  }
}

async function runScript({ code, language }: Snippet, folder: string, where: string): Promise<void> {
  const isBrowser = /onnxruntime-web/.test(code);
  const outfile = join(folder, 'snippet.mjs');
  await build({
    stdin: { contents: code, loader: language === 'ts' ? 'ts' : 'js', resolveDir: ROOT },
    outfile,
    bundle: true,
    format: 'esm',
    platform: isBrowser ? 'browser' : 'node',
    alias: {
      'ort-sigmoid-attention': join(ROOT, 'converter/index.ts'),
      'ort-sigmoid-attention/measured': join(ROOT, 'converter/measured.ts'),
      'ort-sigmoid-attention/node': join(ROOT, 'op/node/index.ts'),
      'ort-sigmoid-attention/web': join(ROOT, 'op/web/index.ts'),
    },
    external: ['onnxruntime-node', 'onnxruntime-common', 'onnxruntime-web', 'onnxruntime-web/webgpu'],
    // Only this: code from TypeScript finds its package from where it lies.
    define: isBrowser
      ? {}
      : { 'import.meta.url': JSON.stringify(`file://${join(ROOT, 'op/node/index.ts')}`) },
    logLevel: 'silent',
  }).catch((error: Error) => assert.fail(`${where}: ${error.message}`));
  if (isBrowser) return;
  const { status, stderr } = spawnSync(process.execPath, [outfile], { cwd: folder, encoding: 'utf8' });
  assert.equal(status, 0, `${where}: ${stderr}`);
}

describe('documents', function () {
  this.timeout(180_000);

  for (const file of documents(ROOT)) {
    it(`${file}: links lead somewhere`, () => {
      const text = readFileSync(join(ROOT, file), 'utf8').replace(/```[\s\S]*?```/g, '');
      const links = [...text.matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)/g)].map(
        ([, link]) => link!,
      );
      const missing = links.filter((link) => !existsSync(join(ROOT, file, '..', link)));
      assert.deepEqual(missing, []);
    });

    const blocks = snippets(ROOT, file);
    if (blocks.length === 0) continue;
    it(`${file}: the code runs`, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'docs-'));
      try {
        const model = sampleModel();
        writeFileSync(join(folder, 'model.onnx'), model);
        const converted = convert(openModel(model), { mode: 'faithful' }).toBytes();
        for (const name of ['converted.onnx', 'out.onnx']) writeFileSync(join(folder, name), converted);
        mkdirSync(join(folder, 'samples'));
        for (const i of [0, 1, 2]) writeFileSync(join(folder, 'samples', `${i}.npz`), sampleInputs(i));
        symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
        for (const block of blocks) {
          const where = `${file}:${block.line}`;
          if (block.language === 'sh')
            for (const command of commands(block.code)) runCommand(command, folder, where);
          else if (block.language === 'js' || block.language === 'ts') await runScript(block, folder, where);
          else if (!SHOWN_ONLY.has(block.language)) {
            assert.match(
              block.before,
              /untested|run by/i,
              `${where}: a ${block.language} block must be said to be untested`,
            );
          }
        }
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  }
});
