/**
 * Triton Inference Server's model configuration, as much of it as an export writes, printed in protobuf's text format.
 * Names and types are those of `inference.ModelConfig` (model_config.proto of triton-inference-server/common).
 */

/** `inference.DataType` by the number of ONNX's TensorProto.DataType. */
const DATA_TYPES: Readonly<Record<number, string>> = {
  1: 'TYPE_FP32',
  2: 'TYPE_UINT8',
  3: 'TYPE_INT8',
  4: 'TYPE_UINT16',
  5: 'TYPE_INT16',
  6: 'TYPE_INT32',
  7: 'TYPE_INT64',
  8: 'TYPE_STRING',
  9: 'TYPE_BOOL',
  10: 'TYPE_FP16',
  11: 'TYPE_FP64',
  12: 'TYPE_UINT32',
  13: 'TYPE_UINT64',
  16: 'TYPE_BF16',
};

/** Triton's name of an ONNX element type; `undefined` where Triton has none. */
export function tritonType(dataType: number): string | undefined {
  return DATA_TYPES[dataType];
}

export interface TensorConfig {
  readonly name: string;
  readonly dataType: string;
  /** -1: any size. Without the batch axis where the configuration has a `maxBatchSize`. */
  readonly dims: readonly number[];
  /** The shape that the model has, where it is not `dims` (Triton knows no tensors without dimensions). */
  readonly reshape?: readonly number[];
}

export interface ModelConfig {
  readonly name: string;
  readonly maxBatchSize: number;
  readonly inputs: readonly TensorConfig[];
  readonly outputs: readonly TensorConfig[];
  readonly device: 'cpu' | 'cuda';
  /** Copies of the model that serve requests at the same time, on each GPU with `cuda`. */
  readonly instances: number;
  /** Microseconds that a request waits for others to share its run; null: no dynamic batching. */
  readonly queueDelay: number | null;
  /** Where the server finds the operator library. */
  readonly libraryPath: string;
}

/** The text of `config.pbtxt`. */
export function configText(config: ModelConfig): string {
  const tensors = (field: string, list: readonly TensorConfig[]): string[] =>
    list.map(({ name, dataType, dims, reshape }) =>
      [
        `${field} {`,
        `  name: ${quoted(name)}`,
        `  data_type: ${dataType}`,
        `  dims: [ ${dims.join(', ')} ]`,
        ...(reshape === undefined ? [] : [`  reshape { shape: [ ${reshape.join(', ')} ] }`]),
        '}',
      ].join('\n'),
    );
  const isCuda = config.device === 'cuda';
  const parts = [
    `name: ${quoted(config.name)}`,
    'backend: "onnxruntime"',
    'default_model_filename: "model.onnx"',
    `max_batch_size: ${config.maxBatchSize}`,
    ...tensors('input', config.inputs),
    ...tensors('output', config.outputs),
    `instance_group {\n  count: ${config.instances}\n  kind: ${isCuda ? 'KIND_GPU' : 'KIND_CPU'}\n}`,
    ...(config.queueDelay === null
      ? []
      : [`dynamic_batching {\n  max_queue_delay_microseconds: ${config.queueDelay}\n}`]),
    `model_operations {\n  op_library_filename: ${quoted(config.libraryPath)}\n}`,
  ];
  return `${parts.join('\n')}\n`;
}

/** A string of the text format. */
function quoted(text: string): string {
  const escaped = text.replace(/[\\"]/g, '\\$&').replace(/[\u0000-\u001f\u007f]/g, (control) => {
    return `\\${control.charCodeAt(0).toString(8).padStart(3, '0')}`;
  });
  return `"${escaped}"`;
}
