/**
 * Sends models that import our operator domain to the addon and leaves all others to stock onnxruntime-node, behind one
 * `InferenceSession.create`.
 */

import type { Backend, InferenceSession, InferenceSessionHandler } from 'onnxruntime-common';
import { DOMAIN, SINCE_VERSION } from '../schema.js';
import { readModelImports } from './model-imports.js';
import { loadAddon, type NativeAddon } from './native-addon.js';
import { libraryPath } from './package-root.js';
import { SigmoidSessionHandler } from './session-handler.js';
import { sessionSettings } from './session-options.js';
import type { StockPackage } from './stock-package.js';

/** Also recognises the work of another copy of this package. */
const IS_ROUTED = Symbol.for('ort-sigmoid-attention.routed');

/** How the operator's own errors begin (op/native/kernel.cc); see docs/errors.md. */
const OPERATOR_ERROR = /\bSigmoidAttention( node '[^']*')?: /;

type CreateHandler = Backend['createInferenceSessionHandler'];

/** Wraps the package's way of creating sessions. Doing it again changes nothing. */
export function routeSessions(stock: StockPackage): void {
  const backend = stock.backend as Backend & { [IS_ROUTED]?: true };
  if (backend[IS_ROUTED]) return;
  backend[IS_ROUTED] = true;
  const createStock: CreateHandler = backend.createInferenceSessionHandler.bind(backend);
  backend.createInferenceSessionHandler = async (model, options) => {
    const imports = await readModelImports(model);
    if (!imports?.domains.has(DOMAIN)) return createStock(model, options);
    const version = imports.domains.get(DOMAIN) ?? SINCE_VERSION;
    const ours = async (): Promise<InferenceSessionHandler> => {
      if (version > SINCE_VERSION) throw new Error(newerModel(version));
      return createHandler(stock, model, options ?? {});
    };
    if (!imports.functionDomains.has(DOMAIN)) return ours();
    return ours().catch((error: Error) => {
      // A violated constraint must not turn into numbers; anything else may still run as the model's own function.
      if (OPERATOR_ERROR.test(error.message)) throw error;
      return createFromFunction(() => createStock(model, options), error);
    });
  };
}

/** A later version may mean something else by the same node: no kernel of ours may run it. */
function newerModel(version: number): string {
  return (
    `the model needs version ${version} of ${DOMAIN}, this release of ort-sigmoid-attention has version ` +
    `${SINCE_VERSION}; install a newer release.`
  );
}

let addon: NativeAddon | undefined;
/** Creations come one after the other; see op/node/addon/session.cc. */
let lastCreation: Promise<unknown> = Promise.resolve();

function createHandler(
  stock: StockPackage,
  model: string | Uint8Array,
  options: InferenceSession.SessionOptions,
): Promise<InferenceSessionHandler> {
  const creation = lastCreation.then(async () => {
    const settings = sessionSettings(options);
    if (addon === undefined) {
      const loaded = loadAddon();
      stock.initialize();
      loaded.findRuntime(stock.ortLibrary());
      addon = loaded;
    }
    return new SigmoidSessionHandler(await addon.createSession(model, libraryPath(), settings));
  });
  lastCreation = creation.catch(() => undefined);
  return creation;
}

let hasWarned = false;

/** The model's function body in standard operators: slower, the same numbers. */
async function createFromFunction(
  create: () => Promise<InferenceSessionHandler>,
  reason: Error,
): Promise<InferenceSessionHandler> {
  let handler: InferenceSessionHandler;
  try {
    handler = await create();
  } catch {
    throw reason;
  }
  if (!hasWarned) {
    hasWarned = true;
    process.emitWarning(
      `SigmoidAttention runs as the model's own function, which is slower, because: ${reason.message}`,
      'SigmoidAttentionWarning',
    );
  }
  return handler;
}
