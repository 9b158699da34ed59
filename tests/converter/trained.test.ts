/**
 * The zoo's trained character models, judged by what they are for: a converted model has the loss of the original on the
 * held-back text. `fuse` (sigmoid models) to float rounding, `faithful` (softmax models) within 1e-3 of it,
 * though the converter sees no text.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import * as ort from 'onnxruntime-node';
import { zooFile } from '../../bench/fidelity/zoo.js';
import { readNpz } from '../../converter/data/npz.js';
import { sliceRows } from '../../converter/data/tensor.js';
import { planParameters } from '../../converter/calibrate/plan.js';
import { convert, openModel, type Mode } from '../../converter/index.js';
import { openRuntime } from '../../converter/verify/runtime.js';
import { register } from '../../op/node/index.js';

const MODELS: readonly { name: string; mode: Mode; relative: number }[] = ['dyn18', 'ts14', 'ts17'].flatMap(
  (exporter) => [
    { name: `trained_charlm_sigmoid__${exporter}`, mode: 'fuse' as const, relative: 1e-6 },
    { name: `trained_charlm_softmax__${exporter}`, mode: 'faithful' as const, relative: 1e-3 },
  ],
);

const ROWS = 8;

/** Mean loss of the next character over the first rows of the held-back text, nats. */
async function loss(model: Uint8Array, heldOut: string): Promise<number> {
  const { input_ids: ids, labels } = readNpz(readFileSync(heldOut), heldOut);
  const [given, truth] = [sliceRows(ids!, 0, ROWS), sliceRows(labels!, 0, ROWS).data as BigInt64Array];
  const session = await ort.InferenceSession.create(model);
  const input = new ort.Tensor('int64', given.data as BigInt64Array, given.dims);
  const { logits } = await session.run({ input_ids: input });
  await session.release();
  const classes = logits!.dims[2]!;
  let nats = 0;
  truth.forEach((label, i) => {
    const own = (logits!.data as Float32Array).subarray(i * classes, (i + 1) * classes);
    const sum = own.reduce((total, value) => total + Math.exp(value), 0);
    nats += Math.log(sum) - own[Number(label)]!;
  });
  return nats / truth.length;
}

describe('converter on trained models', function () {
  this.timeout(120_000);
  before(() => register());

  for (const { name, mode, relative } of MODELS) {
    it(`${mode} keeps the loss of ${name}`, async function () {
      const file = zooFile(`${name}.onnx`);
      const heldOut = zooFile(`${name.replace(/__.*/, '')}.heldout.npz`);
      if (file === null || heldOut === null) {
        console.log('      skipped: ZOO_DIR does not name a folder with the trained models');
        this.skip();
      }
      const original = readFileSync(file);
      const model = openModel(original);
      const { parameters } = await planParameters({
        placed: { model, folder: path.dirname(file) },
        mode,
        runtime: openRuntime,
        seed: 1,
      });
      const conversion = convert(model, { mode, parameters: (site) => parameters.get(site.name) });
      assert.deepEqual(conversion.refused, []);
      assert.ok(conversion.replaced.length > 0);
      const [before, after] = [await loss(original, heldOut), await loss(conversion.toBytes(), heldOut)];
      assert.ok(Math.abs(after - before) <= relative * before, `loss ${before} became ${after}`);
    });
  }
});
