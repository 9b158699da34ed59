/** Models for the compatibility matrix, and what must become of each. */
import proto from 'onnx-proto';
import { sigmoidAttention } from '../../op/reference.js';
import { DEFAULTS, encode, Float, numbers, qkv } from '../node/models.js';

const { ModelProto } = proto.onnx;

export interface CompatModel {
  readonly name: string;
  readonly model: string;
  readonly feeds: Readonly<Record<string, { readonly dims: number[]; readonly data: number[] }>>;
  readonly expected:
    { readonly handlers: readonly string[]; readonly Y: readonly number[] } | { readonly error: RegExp };
}

const KERNEL = 'SigmoidSessionHandler';

/** The same model, said to use a later version of the operator. */
function withVersion(bytes: Uint8Array, version: number): Uint8Array {
  const model = ModelProto.decode(bytes);
  model.opsetImport.find(({ domain }) => domain === 'ort.sigmoid')!.version = version;
  return ModelProto.encode(model).finish();
}

export function compatModels(): CompatModel[] {
  const tensor = (dims: number[], seed: number): { dims: number[]; data: number[] } => ({
    dims,
    data: [
      ...numbers(
        dims.reduce((a, b) => a * b, 1),
        seed,
      ),
    ],
  });
  const feeds = { Q: tensor([1, 4, 3, 8], 1), K: tensor([1, 2, 5, 8], 2), V: tensor([1, 2, 5, 8], 3) };
  const typed = (name: 'Q' | 'K' | 'V') =>
    ({ type: 'float', dims: feeds[name].dims, data: Float32Array.from(feeds[name].data) }) as const;
  const { Y } = sigmoidAttention({ Q: typed('Q'), K: typed('K'), V: typed('V') }, { bias: -1 });
  const values = Array.from(Y.data);

  const attributes = { ...DEFAULTS, scale: new Float(1 / Math.sqrt(8)), bias: new Float(-1) };
  const functionFor = { rank: 4, attributes: { scale: 1 / Math.sqrt(8), bias: -1 } } as const;
  const plain = encode({ inputs: qkv(), attributes });
  const portable = encode({ inputs: qkv(), attributes, functionFor });
  const make = (name: string, bytes: Uint8Array, expected: CompatModel['expected']): CompatModel => ({
    name,
    model: Buffer.from(bytes).toString('base64'),
    feeds,
    expected,
  });
  return [
    make('without function', plain, { handlers: [KERNEL], Y: values }),
    make('with function', portable, { handlers: [KERNEL], Y: values }),
    make('newer, without function', withVersion(plain, 2), {
      error: /needs version 2 of ort\.sigmoid.*newer release/,
    }),
    make('newer, with function', withVersion(portable, 2), {
      handlers: ['OnnxruntimeSessionHandler'],
      Y: values,
    }),
  ];
}
