/**
 * Compiles the hot CUDA kernels where nvcc is installed, and reads what the compiler says of them: no register spills,
 * no serialised matrix products, and (where cuobjdump is installed) warpgroup products in the machine code.
 */

import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const HOPPER = ['-gencode', 'arch=compute_90a,code=sm_90a'];
const AMPERE = ['-gencode', 'arch=compute_80,code=sm_80'];

const has = (tool: string): boolean => spawnSync(tool, ['--version']).status === 0;

async function compile(source: string, object: string, target: readonly string[]): Promise<string> {
  const { stdout, stderr } = await run(
    'nvcc',
    ['-std=c++17', '-O3', `-I${ROOT}`, ...target, '-Xptxas', '-v', '-c', source, '-o', object],
    { maxBuffer: 1 << 26 },
  );
  return stdout + stderr;
}

/** Bytes of spills by the kind of kernel, the first that fits. */
const ALLOWED: readonly (readonly [RegExp, number])[] = [
  [/HopperShape\w*ELb1E/, Infinity],
  [/HopperShape/, 160],
  [/ReciprocalWeights/, 32],
];

/**
 * Registers may be spilled in the general Hopper kernels (masks, ALiBi, softcap, normalize), and a few in the others: by
 * the producer, and by the consumers where they change tiles or wait (docs/cuda-ladder.md). The mma.sync kernels of the
 * reciprocal formula may spill a few where long rows are added up in segments; the others must not.
 */
function assertHot(report: string): void {
  const kernels = report.split('Compiling entry function').slice(1);
  assert.ok(kernels.length > 0, `the compiler reported no kernel:\n${report}`);
  const spilling = kernels.filter((kernel) => {
    const bytes = Number(/(\d+) bytes spill stores/.exec(kernel)?.[1]);
    const allowed = ALLOWED.find(([kind]) => kind.test(kernel))?.[1] ?? 0;
    return !(bytes <= allowed);
  });
  assert.deepEqual(spilling, [], 'registers are spilled');
  assert.doesNotMatch(report, /wgmma\.mma_async instructions are serialized/);
}

describe('CUDA kernels compile', function () {
  this.timeout(600_000);
  let folder = '';

  before(async function () {
    if (!has('nvcc')) {
      console.log('      skipped: nvcc is not installed');
      this.skip();
    }
    folder = await mkdtemp(join(tmpdir(), 'cuda-compile-'));
  });
  after(async () => {
    if (folder !== '') await rm(folder, { recursive: true });
  });

  it('the header is plain C', async () => {
    const source = join(folder, 'header.c');
    await writeFile(
      source,
      '#include "cuda/sigmoid_attention.h"\nint use(void) { return sa_cuda_check_device(); }\n',
    );
    await run('cc', ['-std=c99', '-Wall', '-Wextra', '-Werror', `-I${ROOT}`, '-fsyntax-only', source]);
  });

  for (const size of [64, 128]) {
    it(`Hopper, head size ${size}: hardly any spills, wgmma not serialised`, async () => {
      const object = join(folder, `hopper-${size}.o`);
      assertHot(await compile(join(ROOT, `cuda/hopper/head_${size}.cu`), object, HOPPER));
      if (!has('cuobjdump')) {
        console.log('      machine code not looked at: cuobjdump is not installed');
        return;
      }
      const { stdout } = await run('cuobjdump', ['-sass', object], { maxBuffer: 1 << 28 });
      assert.match(stdout, /HGMMA/);
      assert.match(stdout, /UTMALDG/);
    });
  }

  it('mma.sync, head size 128: hardly any spills', async () => {
    assertHot(await compile(join(ROOT, 'cuda/mma/head_128.cu'), join(folder, 'mma.o'), AMPERE));
  });

  it('every other source compiles', async () => {
    const sources = (await readdir(join(ROOT, 'cuda'))).filter((name) => name.endsWith('.cu'));
    assert.ok(sources.includes('plain.cu'));
    for (const name of sources) await compile(join(ROOT, 'cuda', name), join(folder, `${name}.o`), AMPERE);
  });
});
