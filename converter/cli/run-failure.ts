/** What stops a model from running, sorted into the user's data, the model, and everything else. */
import { ModelRefused } from '../verify/verify.js';
import { EXIT, Failure, runtimeErrorText } from './failure.js';

/** Errors of our own data readers are sentences already; those of ONNX Runtime speak of the model. */
export function runFailure(error: unknown, data: string | undefined): Failure {
  const text = runtimeErrorText(error);
  if (data !== undefined && text.includes(data)) return new Failure(text, EXIT.usage, { cause: error });
  if (/^no sample data was given/.test(text)) {
    return new Failure(`${text}; give inputs with --data`, EXIT.usage, { cause: error });
  }
  if (/needs the package/.test(text)) return new Failure(text, EXIT.usage, { cause: error });
  const which = error instanceof ModelRefused ? `the ${error.side} model` : 'the model';
  return new Failure(`ONNX Runtime cannot run ${which}: ${text}`, EXIT.invalidModel, { cause: error });
}
