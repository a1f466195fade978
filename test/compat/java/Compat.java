import com.paypal.juno.client.JunoAsyncClient;
import com.paypal.juno.client.JunoClient;
import com.paypal.juno.client.JunoClientFactory;
import com.paypal.juno.client.JunoReactClient;
import com.paypal.juno.client.io.JunoRequest;
import com.paypal.juno.client.io.JunoResponse;
import com.paypal.juno.conf.JunoPropertiesProvider;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * PayPal's own client, in all its flavours, against a proxy of ours. Prints a line a call: name, status, version, value, whether there is a time to live.
 * The test (java.test.ts) says what they have to be. Arguments: the port; and for TLS the files of the authority, the certificate and its key.
 */
public final class Compat {
  private static final String run = Long.toString(System.nanoTime(), 36);

  public static void main(String[] args) throws Exception {
    int port = Integer.parseInt(args[0]);
    SSLContext tls = args.length > 1 ? context(args[1], args[2], args[3]) : null;
    JunoPropertiesProvider plain = provider(port, false, tls != null);
    JunoPropertiesProvider compressing = provider(port, true, tls != null);
    JunoClient sync = tls == null ? JunoClientFactory.newJunoClient(plain) : JunoClientFactory.newJunoClient(plain, tls);
    verbs("sync", sync);
    bounds(sync);
    batch(sync);
    compressed(tls == null ? JunoClientFactory.newJunoClient(compressing) : JunoClientFactory.newJunoClient(compressing, tls), sync);
    async(tls == null ? JunoClientFactory.newJunoAsyncClient(plain) : JunoClientFactory.newJunoAsyncClient(plain, tls));
    reactor(tls == null ? JunoClientFactory.newJunoReactClient(plain) : JunoClientFactory.newJunoReactClient(plain, tls));
    contention(sync);
    System.out.println("end");
    System.exit(0);
  }

  private static JunoPropertiesProvider provider(int port, boolean compresses, boolean isSecure) {
    Properties properties = new Properties();
    properties.setProperty("juno.server.host", "127.0.0.1");
    properties.setProperty("juno.server.port", Integer.toString(port));
    properties.setProperty("juno.application_name", "hapax-compat");
    properties.setProperty("juno.record_namespace", "compat");
    properties.setProperty("juno.useSSL", Boolean.toString(isSecure));
    properties.setProperty("juno.response.timeout_msec", "5000");
    properties.setProperty("juno.connection.timeout_msec", "5000");
    properties.setProperty("juno.default_record_lifetime_sec", "1800");
    properties.setProperty("juno.usePayloadCompression", Boolean.toString(compresses));
    return new JunoPropertiesProvider(properties);
  }

  /** From PEM files, as `hapax cert` makes them. */
  private static SSLContext context(String authority, String certificate, String key) throws Exception {
    CertificateFactory certificates = CertificateFactory.getInstance("X.509");
    KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
    trusted.load(null, null);
    trusted.setCertificateEntry("authority", certificates.generateCertificate(new ByteArrayInputStream(Files.readAllBytes(Path.of(authority)))));
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(trusted);
    String pem = Files.readString(Path.of(key)).replaceAll("-----[^-]+-----", "");
    PrivateKey secret = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getMimeDecoder().decode(pem)));
    Certificate own = certificates.generateCertificate(new ByteArrayInputStream(Files.readAllBytes(Path.of(certificate))));
    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
    store.load(null, null);
    store.setKeyEntry("own", secret, new char[0], new Certificate[] {own});
    KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    keys.init(store, new char[0]);
    SSLContext context = SSLContext.getInstance("TLSv1.3");
    context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
    return context;
  }

  private static void verbs(String name, JunoClient client) {
    byte[] key = key(name);
    tell(name + " get of nothing", () -> client.get(key));
    tell(name + " update of nothing", () -> client.update(key, bytes("x")));
    tell(name + " create", () -> client.create(key, bytes("one")));
    tell(name + " create again", () -> client.create(key, bytes("two")));
    tell(name + " get", () -> client.get(key));
    tell(name + " get with a longer life", () -> client.get(key, 3000));
    tell(name + " update", () -> client.update(key, bytes("three")));
    JunoResponse seen = client.get(key);
    tell(name + " compareAndSet", () -> client.compareAndSet(seen.getRecordContext(), bytes("four"), 0));
    tell(name + " compareAndSet of an old state", () -> client.compareAndSet(seen.getRecordContext(), bytes("five"), 0));
    tell(name + " set", () -> client.set(key, bytes("six"), 4000));
    tell(name + " get after set", () -> client.get(key));
    tell(name + " delete", () -> client.delete(key));
    tell(name + " delete of nothing", () -> client.delete(key));
    tell(name + " get after delete", () -> client.get(key));
    tell(name + " compareAndSet of nothing", () -> client.compareAndSet(seen.getRecordContext(), bytes("seven"), 0));
    tell(name + " create after delete", () -> client.create(key, bytes("eight"), 10));
    tell(name + " set of a new key", () -> client.set(key(name + "-set"), bytes("nine")));
    tell(name + " empty value", () -> client.set(key(name + "-empty"), new byte[0]));
    tell(name + " get of an empty value", () -> client.get(key(name + "-empty")));
  }

  private static void bounds(JunoClient client) {
    byte[] longest = new byte[128];
    Arrays.fill(longest, (byte) 'k');
    tell("longest key", () -> client.set(longest, bytes("x")));
    byte[] largest = new byte[204800];
    Arrays.fill(largest, (byte) 7);
    tell("largest value", () -> client.set(key("largest"), largest));
    tell("get of the largest value", () -> client.get(key("largest")));
    tell("longest life", () -> client.set(key("longest"), bytes("x"), 259200));
    tell("binary key", () -> client.set(new byte[] {0, 1, (byte) 0xff, (byte) 0xfe}, bytes("binary")));
    tell("get of a binary key", () -> client.get(new byte[] {0, 1, (byte) 0xff, (byte) 0xfe}));
  }

  private static void batch(JunoClient client) {
    List<JunoRequest> requests = new ArrayList<>();
    for (int index = 0; index < 50; index++)
      requests.add(new JunoRequest(key("batch-" + index), bytes("value " + index), 0L, 100L, JunoRequest.OperationType.Create));
    int ok = 0;
    for (JunoResponse response : client.doBatch(requests)) if (response.getStatus().name().equals("Success")) ok++;
    System.out.println("batch of 50 creates\t" + ok);
    requests.clear();
    for (int index = 0; index < 60; index++) requests.add(new JunoRequest(key("batch-" + index), 0L, 0L, JunoRequest.OperationType.Get));
    int right = 0;
    for (JunoResponse response : client.doBatch(requests)) {
      String asked = text(response.getKey());
      String value = response.getValue() == null ? "" : text(response.getValue());
      if (value.equals("value " + asked.substring(asked.lastIndexOf('-') + 1))) right++;
    }
    System.out.println("batch of 60 gets\t" + right);
  }

  private static void compressed(JunoClient compressing, JunoClient other) {
    StringBuilder large = new StringBuilder();
    for (int index = 0; index < 500; index++) large.append("again and ");
    byte[] value = bytes(large.toString());
    tell("compressed set", () -> compressing.set(key("compressed"), value));
    JunoResponse read = other.get(key("compressed"));
    System.out.println("compressed get\t" + Arrays.equals(read.getValue(), value));
  }

  private static void async(JunoAsyncClient client) {
    tell("async create", () -> client.create(key("async"), bytes("one")).toBlocking().value());
    tell("async get", () -> client.get(key("async")).toBlocking().value());
    tell("async delete", () -> client.delete(key("async")).toBlocking().value());
  }

  private static void reactor(JunoReactClient client) {
    tell("reactor create", () -> client.create(key("reactor"), bytes("one")).block());
    tell("reactor get", () -> client.get(key("reactor")).block());
    tell("reactor delete", () -> client.delete(key("reactor")).block());
  }

  /** Eight threads count by compareAndSet; each acknowledged one counts once. */
  private static void contention(JunoClient client) throws Exception {
    byte[] key = key("count");
    client.create(key, bytes("0"));
    AtomicInteger added = new AtomicInteger();
    ConcurrentLinkedQueue<String> faults = new ConcurrentLinkedQueue<>();
    List<Thread> threads = new ArrayList<>();
    for (int index = 0; index < 8; index++) {
      Thread thread = new Thread(() -> {
        for (int round = 0; round < 40; round++) {
          try {
            JunoResponse seen = client.get(key);
            byte[] next = bytes(Integer.toString(Integer.parseInt(text(seen.getValue())) + 1));
            if (client.compareAndSet(seen.getRecordContext(), next, 0).getStatus().name().equals("Success")) added.incrementAndGet();
          } catch (Exception error) {
            faults.add(error.toString());
          }
        }
      });
      threads.add(thread);
      thread.start();
    }
    for (Thread thread : threads) thread.join();
    System.out.println("count\t" + text(client.get(key).getValue()).equals(Integer.toString(added.get())) + "\t" + (added.get() > 0) + "\t" + faults);
  }

  private static void tell(String name, Callable<JunoResponse> call) {
    try {
      JunoResponse response = call.call();
      byte[] value = response.getValue();
      String shown = value == null ? "-" : value.length > 100 ? value.length + " bytes" : text(value);
      System.out.println(name + "\t" + response.getStatus() + "\t" + response.getVersion() + "\t" + shown + "\t" + (response.getTtl() > 0));
    } catch (Exception error) {
      System.out.println(name + "\t" + error);
    }
  }

  private static byte[] key(String name) {
    return bytes(run + "-" + name);
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static String text(byte[] bytes) {
    return new String(bytes, StandardCharsets.UTF_8);
  }
}
