// Lucene's BM25 over tokens that are there already, as OpenSearch runs it: see benchmarks/retrieval_engines.py --lucene.
import java.nio.file.*;
import java.util.*;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.Tokenizer;
import org.apache.lucene.analysis.tokenattributes.CharTermAttribute;
import org.apache.lucene.document.*;
import org.apache.lucene.index.*;
import org.apache.lucene.search.*;
import org.apache.lucene.search.similarities.BM25Similarity;
import org.apache.lucene.store.ByteBuffersDirectory;

public class Lucene {
    /** Words between spaces: the whitespace tokenizer, without the jar that it lies in. */
    static final class Spaces extends Tokenizer {
        private final CharTermAttribute term = addAttribute(CharTermAttribute.class);
        public boolean incrementToken() throws java.io.IOException {
            clearAttributes();
            int c = input.read();
            while (c == ' ') c = input.read();
            while (c != -1 && c != ' ') { term.append((char) c); c = input.read(); }
            return term.length() > 0;
        }
    }

    public static void main(String[] args) throws Exception {
        Analyzer spaces = new Analyzer() {
            protected TokenStreamComponents createComponents(String field) { return new TokenStreamComponents(new Spaces()); }
        };
        IndexWriterConfig config = new IndexWriterConfig(spaces).setSimilarity(new BM25Similarity(1.2f, 0.75f));
        ByteBuffersDirectory memory = new ByteBuffersDirectory();
        FieldType freqs = new FieldType(TextField.TYPE_NOT_STORED);
        freqs.setIndexOptions(IndexOptions.DOCS_AND_FREQS);
        try (IndexWriter writer = new IndexWriter(memory, config)) {
            for (String line : Files.readAllLines(Path.of(args[0], "docs.tsv"))) {
                String[] parts = line.split("\t", -1);
                Document document = new Document();
                document.add(new StoredField("id", parts[0]));
                document.add(new Field("pairs", parts[1], freqs));
                document.add(new Field("singles", parts[2], freqs));
                writer.addDocument(document);
            }
        }
        IndexSearcher searcher = new IndexSearcher(DirectoryReader.open(memory));
        searcher.setSimilarity(new BM25Similarity(1.2f, 0.75f));
        for (String line : Files.readAllLines(Path.of(args[0], "queries.tsv"))) {
            BooleanQuery.Builder query = new BooleanQuery.Builder();
            for (String term : line.isEmpty() ? new String[0] : line.split(" ")) {
                String[] parts = term.split(":");
                query.add(new BoostQuery(new TermQuery(new Term(parts[0], parts[1])), Float.parseFloat(parts[2])), BooleanClause.Occur.SHOULD);
            }
            StringJoiner found = new StringJoiner(" ");
            for (ScoreDoc hit : searcher.search(query.build(), Integer.parseInt(args[1])).scoreDocs)
                found.add(searcher.doc(hit.doc).get("id") + ":" + hit.score);
            System.out.println(found);
        }
    }
}
