/** Model repositories for Triton: their files, and their configuration against Triton's schema. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exportTriton, type TritonExport } from '../../converter/triton/export.js';
import { encode, FLOAT, type NodeModel } from '../node/models.js';
import { parseConfig, tritonSchema, type Message } from './schema.js';

describe('export-triton', () => {
  let folder: string;
  const schema = tritonSchema();

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'triton-'));
    for (const name of ['', '_cuda'])
      writeFileSync(join(folder, `libort_sigmoid_attention${name}.so`), 'library');
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const DEFAULTS = {
    device: 'cpu',
    instances: 1,
    maxBatchSize: 0,
    queueDelay: 100,
    servedFrom: '/models',
  } as const;

  function exported(model: NodeModel, options: Partial<TritonExport> = {}): Message {
    writeFileSync(join(folder, 'm.onnx'), encode(model));
    const library = join(folder, 'libort_sigmoid_attention.so');
    const repository = join(folder, 'repository');
    const result = exportTriton(join(folder, 'm.onnx'), { ...DEFAULTS, repository, library, ...options });
    return parseConfig(readFileSync(join(result.folder, 'config.pbtxt'), 'utf8'), schema);
  }

  const one = (message: Message, field: string): Message => message.get(field)![0] as Message;
  const open = (): NodeModel => {
    const shaped = { type: FLOAT, dims: ['b', 4, 'n', 8] };
    return { inputs: { Q: shaped, K: shaped, V: shaped }, outputs: { Y: shaped } };
  };

  it('writes a repository with the model, the library and a configuration of the schema', () => {
    const config = exported(open());
    assert.deepEqual(config.get('name'), ['m']);
    assert.deepEqual(config.get('backend'), ['onnxruntime']);
    assert.deepEqual(one(config, 'input').get('dims'), ['-1', '4', '-1', '8']);
    assert.deepEqual(one(config, 'input').get('data_type'), ['TYPE_FP32']);
    assert.deepEqual(one(config, 'instance_group').get('kind'), ['KIND_CPU']);
    assert.equal(config.get('dynamic_batching'), undefined);
    const library = '/models/m/libort_sigmoid_attention.so';
    assert.deepEqual(one(config, 'model_operations').get('op_library_filename'), [library]);
    for (const file of ['1/model.onnx', 'libort_sigmoid_attention.so']) {
      assert.ok(existsSync(join(folder, 'repository/m', file)), file);
    }
    assert.deepEqual(readdirSync(join(folder, 'repository')), ['m']);
  });

  it('takes the batch axis out and lets requests be joined', () => {
    const config = exported(open(), { maxBatchSize: 8, device: 'cuda', instances: 2, queueDelay: 500 });
    assert.deepEqual(config.get('max_batch_size'), ['8']);
    assert.deepEqual(one(config, 'output').get('dims'), ['4', '-1', '8']);
    assert.deepEqual(one(config, 'dynamic_batching').get('max_queue_delay_microseconds'), ['500']);
    assert.deepEqual(one(config, 'instance_group').get('kind'), ['KIND_GPU']);
    assert.deepEqual(one(config, 'instance_group').get('count'), ['2']);
    assert.ok(existsSync(join(folder, 'repository/m/libort_sigmoid_attention_cuda.so')));
  });

  it('serves values without dimensions as Triton needs them', () => {
    const model = { ...open(), graphInputs: { flag: { type: FLOAT, dims: [] } } };
    const config = exported(model);
    const flag = (config.get('input') as Message[]).find((input) => input.get('name')![0] === 'flag')!;
    assert.deepEqual(flag.get('dims'), ['1']);
    assert.deepEqual(one(flag, 'reshape').get('shape'), []);
  });

  it('replaces what was there, and leaves it when the new export fails', () => {
    exported(open());
    writeFileSync(join(folder, 'repository/m/old'), '');
    const shape = { type: FLOAT, dims: [1, 4, 3, 8] };
    const fixed = { inputs: { Q: shape, K: shape, V: shape }, outputs: { Y: shape } };
    assert.throws(() => exported(fixed, { maxBatchSize: 4 }), /batches need one that is open/);
    assert.ok(existsSync(join(folder, 'repository/m/old')));
    exported(open());
    assert.equal(existsSync(join(folder, 'repository/m/old')), false);
    assert.deepEqual(readdirSync(join(folder, 'repository')), ['m']);
  });

  it('refuses what the server could not load, in one sentence', () => {
    const refused: [Partial<TritonExport>, RegExp][] = [
      [{ name: '../up' }, /model name '\.\.\/up' is not allowed/],
      [{ instances: 0 }, /instances is 0, must be a whole number from 1/],
      [{ servedFrom: 'models' }, /is 'models', must be absolute/],
      [{ library: join(folder, 'x.dll') }, /servers run Linux/],
      [{ device: 'cuda', library: join(folder, 'none', 'libx.so') }, /device cuda needs/],
    ];
    for (const [options, message] of refused) assert.throws(() => exported(open(), options), message);
    const shapeless = { ...open(), outputs: { Y: { type: FLOAT, dims: undefined } } };
    assert.throws(() => exported(shapeless), /output 'Y' has no declared shape/);
  });

  it('is checked by a schema that finds mistakes', () => {
    const wrong = ['max_batch: 1', 'max_batch_size: "1"', 'name: "a" name: "b"', 'input { dims: [ x ] }'];
    for (const text of wrong) assert.throws(() => parseConfig(text, schema), Error, text);
  });
});
