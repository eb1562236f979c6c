import java.net.*;
import java.net.http.*;
import java.nio.file.*;
import java.security.KeyStore;
import java.time.Duration;
import java.util.*;
import javax.net.ssl.*;
import static java.nio.charset.StandardCharsets.UTF_8;

/** Prints the partner's answer to each path on standard input: echo /fleets | java Partner.java DIR BASE_URL */
record Partner(Path generation, HttpClient client, String authorization, String clientId) {
    /** Reads one generation. Call it with the real path of DIR/current, not through the link. */
    static Partner read(Path at) throws Exception {
        char[] passphrase = Files.readString(at.resolve("keystore.password")).toCharArray();
        var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(KeyStore.getInstance(at.resolve("keystore.p12").toFile(), passphrase), passphrase);
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(KeyStore.getInstance(at.resolve("truststore.p12").toFile(), passphrase));
        var tls = SSLContext.getInstance("TLS");
        tls.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        var login = Files.readString(at.resolve("username")) + ":" + Files.readString(at.resolve("password"));
        return new Partner(at, HttpClient.newBuilder().sslContext(tls).build(),
            "Basic " + Base64.getEncoder().encodeToString(login.getBytes(UTF_8)),
            URLEncoder.encode(Files.readString(at.resolve("client_id")), UTF_8));
    }

    String get(String url) throws Exception {
        var uri = URI.create(url + (url.contains("?") ? "&" : "?") + "client_id=" + clientId);
        var request = HttpRequest.newBuilder(uri).header("Authorization", authorization).timeout(Duration.ofMinutes(1));
        return client.send(request.build(), HttpResponse.BodyHandlers.ofString()).body();
    }

    public static void main(String[] args) throws Exception {
        Partner partner = null;
        for (var paths = new Scanner(System.in, UTF_8); paths.hasNextLine(); ) {
            var path = paths.nextLine();
            var generation = Path.of(args[0], "current").toRealPath();
            if (partner == null || !partner.generation.equals(generation)) partner = read(generation);
            System.out.println(partner.get(args[1] + path));
        }
    }
}
