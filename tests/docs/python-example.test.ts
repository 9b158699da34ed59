/** examples/python/run.py, where Python has ONNX Runtime. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { convert, openModel } from '../../converter/index.js';
import { libraryPath } from '../../op/node/package-root.js';
import { sampleModel } from './sample-model.js';

describe('the Python example', function () {
  this.timeout(60_000);

  it('runs a converted model with the library and compares it with the function', function () {
    if (spawnSync('python3', ['-c', 'import numpy, onnxruntime']).status !== 0) {
      console.log('      skipped: no Python with numpy and onnxruntime');
      this.skip();
    }
    const folder = mkdtempSync(join(tmpdir(), 'python-'));
    try {
      const model = join(folder, 'converted.onnx');
      writeFileSync(model, convert(openModel(sampleModel()), { mode: 'faithful' }).toBytes());
      const script = join(import.meta.dirname, '../../examples/python/run.py');
      const { status, stdout, stderr } = spawnSync('python3', [script, model, libraryPath()], {
        encoding: 'utf8',
      });
      assert.equal(status, 0, stderr);
      assert.match(stdout, /y: kernel and function differ by at most/);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
