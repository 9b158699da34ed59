// Untested. A converted model in Java (com.microsoft.onnxruntime:onnxruntime 1.24 or newer): java Run.java MODEL LIBRARY
// LIBRARY is what `npx sigmoid-attention library` prints.
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtSession;

public class Run {
  public static void main(String[] arguments) throws Exception {
    OrtEnvironment environment = OrtEnvironment.getEnvironment();
    try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
      options.registerCustomOpLibrary(arguments[1]);
      try (OrtSession session = environment.createSession(arguments[0], options)) {
        session.getInputInfo().forEach((name, info) -> System.out.println(name + ": " + info));
      }
    }
  }
}
