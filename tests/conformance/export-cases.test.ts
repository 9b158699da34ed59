/** The exported files, read back as any runtime would: names, types, expected outputs and tolerances. */

import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import * as ort from 'onnxruntime-node';
import proto from 'onnx-proto';

import type { AttentionInputs } from '../../op/constraints.js';
import { tensorFromProto } from '../../op/tensor-proto.js';
import { type Tensor, toNumbers } from '../../op/tensor.js';
import { CASES } from './cases.js';
import { exportCases, type Index } from './export-cases.js';
import { inputsOf } from './case-inputs.js';
import { runModelOn } from './ort-session.js';
import { sigmoidAttention } from '../../op/reference.js';

const EXPORTED = [
  'attention_4d_gqa_with_past_and_present_fp16',
  'attention_3d_gqa_causal',
  'poison_visible_value_Infinity_float16',
  'poison_key_beyond_causal_NaN_float',
  'everything_bfloat16',
  'everything_rank3_float',
  'empty_keys_float',
  'mask_bool_HQK_random',
];

describe('conformance export', () => {
  const cases = CASES.filter(({ name }) => EXPORTED.includes(name));
  let parent: string;
  let directory: string;
  let index: Index;

  before(async () => {
    parent = await mkdtemp(join(tmpdir(), 'conformance-'));
    directory = join(parent, 'cases');
    await exportCases(directory, cases);
    index = JSON.parse(await readFile(join(directory, 'index.json'), 'utf8')) as Index;
  });
  after(() => rm(parent, { recursive: true }));

  const read = async (name: string, file: string): Promise<[string, Tensor]> => {
    const bytes = await readFile(join(directory, name, 'test_data_set_0', file));
    const message = proto.onnx.TensorProto.decode(bytes);
    return [message.name, tensorFromProto(message)];
  };

  it('leaves nothing but the folder asked for', async () => {
    assert.deepEqual(await readdir(parent), ['cases']);
    assert.equal(index.cases.length, EXPORTED.length);
    assert.deepEqual((await readdir(directory)).sort(), ['index.json', ...EXPORTED].sort());
  });

  for (const testCase of cases) {
    it(`${testCase.name}: inputs and outputs are those of the table`, async () => {
      const entry = index.cases.find(({ name }) => name === testCase.name)!;
      const inputs = inputsOf(testCase);
      for (const [at, name] of entry.inputs.entries())
        assert.deepEqual(await read(entry.name, `input_${at}.pb`), [name, inputs[name as 'Q']]);
      const reference = sigmoidAttention(inputs, testCase.attributes);
      const [name, Y] = await read(entry.name, 'output_0.pb');
      assert.equal(name, 'Y');
      assert.equal(Y.type, testCase.type);
      const [, allowed] = await read(entry.name, 'allowed_0.pb');
      const [values, bounds] = [toNumbers(Y), toNumbers(allowed)];
      reference.Y.data.forEach((value, position) => {
        if (Number.isFinite(value)) assert.ok(Math.abs(values[position]! - value) <= bounds[position]!);
        else assert.deepEqual([values[position], bounds[position]], [value, 0]);
      });
      assert.deepEqual(entry.outputs, testCase.presents ? ['Y', 'present_key', 'present_value'] : ['Y']);
      if (testCase.presents)
        assert.deepEqual(await read(entry.name, 'output_2.pb'), ['present_value', reference.present_value]);
    });

    if (testCase.type !== 'bfloat16')
      it(`${testCase.name}: the model gives the outputs within the bounds`, async () => {
        const entry = index.cases.find(({ name }) => name === testCase.name)!;
        const model = await readFile(join(directory, entry.name, 'model.onnx'));
        const files = entry.inputs.map((_, at) => read(entry.name, `input_${at}.pb`));
        const inputs = Object.fromEntries(await Promise.all(files)) as AttentionInputs;
        const outputs = await runModelOn(ort, model, testCase.type, inputs, entry.outputs);
        const [, wanted] = await read(entry.name, 'output_0.pb');
        const [, allowed] = await read(entry.name, 'allowed_0.pb');
        const [found, bounds] = [toNumbers(outputs['Y']!), toNumbers(allowed)];
        toNumbers(wanted).forEach((value, position) => {
          if (Number.isFinite(value)) assert.ok(Math.abs(found[position]! - value) <= bounds[position]!);
          else assert.equal(found[position], value);
        });
      });
  }

  it('refuses a folder that holds something', async () => {
    await writeFile(join(directory, 'mine.txt'), 'mine');
    await assert.rejects(
      exportCases(directory, cases),
      new Error(`${directory} is not empty, must be a new or an empty folder.`),
    );
    assert.equal(await readFile(join(directory, 'mine.txt'), 'utf8'), 'mine');
  });

  it('leaves nothing behind where it cannot write', async () => {
    const file = join(parent, 'file');
    await writeFile(file, '');
    await assert.rejects(exportCases(join(file, 'cases'), cases), /ENOTDIR/);
    assert.deepEqual((await readdir(parent)).sort(), ['cases', 'file']);
  });
});
