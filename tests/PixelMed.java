// Judges reports by the templates of PS3.16: every file that is named, in one process, for to start takes seconds.
// Run as source: java -cp pixelmed.jar tests/PixelMed.java FILE ...; a line of each file's path before what is said of it.
import com.pixelmed.validate.DicomSRValidator;

public class PixelMed {
    public static void main(String[] files) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        for (String file : files) {
            System.out.println("File " + file);
            // the last option: say where a template is judged by that the document does not name
            System.out.println(validator.validate(file, false, true, false, false, true));
        }
    }
}
