package plumbline;

import io.delta.storage.HadoopFileSystemLogStore;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.util.Arrays;
import java.util.Iterator;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FSDataOutputStreamBuilder;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.s3a.AWSServiceIOException;
import software.amazon.awssdk.awscore.exception.AwsServiceException;

/**
 * Delta's log in S3, safe for several writers at once, Spark or delta-rs: a version's file is put only if no file of
 * that name exists (If-None-Match: *). Delta's own S3SingleDriverLogStore overwrites what another driver committed.
 */
public class PutIfAbsentLogStore extends HadoopFileSystemLogStore {
    /** Hadoop 3.4.2 and newer: the S3A client sends If-None-Match: * with the request that completes the file. */
    private static final String PUT_IF_ABSENT = "fs.option.create.conditional.overwrite";

    private static final int CONFLICT = 409; // another conditional put of the same key is under way
    private static final int PRECONDITION_FAILED = 412; // the key exists

    public PutIfAbsentLogStore(Configuration hadoop) {
        super(hadoop);
    }

    @Override
    public void write(Path path, Iterator<String> actions, Boolean overwrite, Configuration hadoop) throws IOException {
        StringBuilder lines = new StringBuilder();
        actions.forEachRemaining(action -> lines.append(action).append('\n'));
        byte[] content = lines.toString().getBytes(StandardCharsets.UTF_8);
        FileSystem files = path.getFileSystem(hadoop);
        try {
            put(files, path, content, overwrite);
        } catch (IOException error) {
            if (overwrite || !exists(error)) {
                throw error;
            }
            if (!holds(files, path, content)) {
                throw new FileAlreadyExistsException(path.toString());
            }
        }
    }

    @Override
    public Boolean isPartialWriteVisible(Path path, Configuration hadoop) {
        return false;
    }

    private static void put(FileSystem files, Path path, byte[] content, boolean overwrite) throws IOException {
        FSDataOutputStreamBuilder<?, ?> file = files.createFile(path).overwrite(overwrite);
        if (!overwrite) {
            file.must(PUT_IF_ABSENT, true);
        }
        FSDataOutputStream stream = (FSDataOutputStream) file.build();
        try {
            stream.write(content);
        } catch (IOException | RuntimeException error) {
            stream.abort(); // to close it would commit a part
            throw error;
        }
        stream.close();
    }

    private static boolean exists(IOException error) {
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            int status = 0;
            if (cause instanceof org.apache.hadoop.fs.FileAlreadyExistsException) {
                return true;
            } else if (cause instanceof AWSServiceIOException answer) {
                status = answer.statusCode();
            } else if (cause instanceof AwsServiceException answer) {
                status = answer.statusCode();
            }
            if (status == CONFLICT || status == PRECONDITION_FAILED) {
                return true;
            }
        }
        return false;
    }

    /**
     * Whether the file is the one that this commit tried to write. When S3's first answer is lost, the client puts
     * again and is told that the key exists. A commit's own txnId makes its content unique.
     */
    private static boolean holds(FileSystem files, Path path, byte[] content) throws IOException {
        try (InputStream stream = files.open(path)) {
            return Arrays.equals(stream.readAllBytes(), content);
        } catch (FileNotFoundException error) { // the conditional put that it conflicted with did not succeed
            return false;
        }
    }
}
