/**
 * ONNX Runtime for verification and calibration: onnxruntime-node, with this package's operator where its native library
 * is there. Without the library converted models run their portable function body.
 */
import type * as ort from 'onnxruntime-node';
import type { Feeds } from '../data/tensor.js';

export type Outputs = Readonly<Record<string, ort.Tensor>>;

export interface Session {
  readonly inputs: readonly {
    readonly name: string;
    readonly type: string;
    readonly shape: readonly (number | string)[];
  }[];
  readonly outputs: readonly string[];
  /** @param fetches only these outputs; all when absent */
  run(feeds: Feeds, fetches?: readonly string[]): Promise<Outputs>;
  close(): Promise<void>;
}

export interface Runtime {
  /** `kernel`: the operator runs natively; `function body`: as standard operators. */
  readonly operator: 'kernel' | 'function body';
  /**
   * @param model the bytes of a model, or its file
   * @param folder where the external data of bytes lies
   * @param plain run the graph node by node as it is written, without the runtime's optimisations
   */
  open(model: Uint8Array | string, folder?: string, plain?: boolean): Promise<Session>;
}

const SESSION_OPTIONS: ort.InferenceSession.SessionOptions = { logSeverityLevel: 4 };

export interface RuntimeOptions {
  /** ONNX Runtime's idle threads wait busily: right for timing, a waste where models run in turns with other work. */
  readonly spinning?: boolean;
}

/** Loads onnxruntime-node. Throws one sentence where it is not installed. */
export async function openRuntime({ spinning = false }: RuntimeOptions = {}): Promise<Runtime> {
  let runtime: typeof ort;
  try {
    runtime = await import('onnxruntime-node');
  } catch (error) {
    throw new Error('running models needs the package onnxruntime-node; install it beside this one', {
      cause: error,
    });
  }
  const operator = await loadOperator();
  return {
    operator,
    open: async (model, folder, plain = false) => {
      const config = {
        ...(spinning ? {} : { intra_op: { allow_spinning: '0' } }),
        ...(folder === undefined ? {} : { model_external_initializers_file_folder_path: folder }),
      };
      const options: ort.InferenceSession.SessionOptions = {
        ...SESSION_OPTIONS,
        ...(plain ? { graphOptimizationLevel: 'disabled' } : {}),
        extra: { session: config },
      };
      const session =
        typeof model === 'string'
          ? await runtime.InferenceSession.create(model, options)
          : await runtime.InferenceSession.create(model, options);
      return wrap(runtime, session);
    },
  };
}

/** Importing op/node reroutes sessions, so it is only done where the native library is there to receive them. */
async function loadOperator(): Promise<Runtime['operator']> {
  const { libraryPath } = await import('../../op/node/package-root.js');
  try {
    libraryPath();
  } catch {
    return 'function body';
  }
  await import('../../op/node/index.js');
  return 'kernel';
}

function wrap(runtime: typeof ort, session: ort.InferenceSession): Session {
  return {
    inputs: session.inputMetadata.map((input) => ({
      name: input.name,
      type: input.isTensor ? input.type : 'not a tensor',
      shape: input.isTensor ? input.shape : [],
    })),
    outputs: session.outputNames,
    run: async (feeds, fetches) => {
      const tensors: Record<string, ort.Tensor> = {};
      for (const [name, { type, data, dims }] of Object.entries(feeds)) {
        tensors[name] = new runtime.Tensor(type as 'float32', data as Float32Array, dims);
      }
      return fetches ? session.run(tensors, fetches) : session.run(tensors);
    },
    close: () => session.release(),
  };
}
