/** The native argument checks on the corpus that libFuzzer has kept, and on new mutations of it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../..');
const compiler = ['clang++', 'clang++-14', 'clang++-16', 'clang++-19'].find(
  (name) => spawnSync(name, ['--version']).status === 0,
);

describe('native argument checks', function () {
  this.timeout(180_000);

  it('survive libFuzzer with ASan and UBSan', function () {
    if (compiler === undefined) {
      console.log('      skipped: no clang++ (Debian: clang and libclang-rt-14-dev)');
      this.skip();
    }
    const folder = mkdtempSync(join(tmpdir(), 'fuzz-'));
    try {
      const build = join(root, 'build/fuzz');
      const steps: [string, ...string[]][] = [
        ['cmake', '-S', join(root, 'tests/fuzz/native'), '-B', build, `-DCMAKE_CXX_COMPILER=${compiler}`],
        ['cmake', '--build', build],
      ];
      for (const [command, ...args] of steps) {
        const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
        if (/cannot find .*clang_rt\.(fuzzer|asan)/.test(`${stdout}${stderr}`)) {
          console.log(
            '      skipped: Clang is here without its runtime libraries (Debian: libclang-rt-14-dev)',
          );
          this.skip();
        }
        assert.equal(status, 0, `${stdout}${stderr}`);
      }
      const run = spawnSync(
        join(build, 'arguments_fuzzer'),
        [
          '-runs=200000',
          '-seed=1',
          '-max_len=512',
          '-len_control=0',
          `-artifact_prefix=${folder}/`,
          folder,
          join(root, 'tests/fuzz/native/corpus'),
        ],
        { encoding: 'utf8' },
      );
      assert.equal(run.status, 0, run.stderr.slice(-4000));
      assert.match(run.stderr, /Done 2\d{5} runs/);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
