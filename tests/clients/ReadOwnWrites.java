// Reads through Arrow's Flight SQL JDBC driver, one question a line of stdin: a token and a sale's number. An answer is
// a line of what the query gave and of what the catalog says, between tabs.
// java -cp flight-sql-jdbc-driver.jar ReadOwnWrites.java URL TABLE SQL

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.math.BigDecimal;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Timestamp;
import java.time.Instant;
import java.util.Calendar;
import java.util.StringJoiner;
import java.util.TimeZone;

public class ReadOwnWrites {
  static final Calendar UTC = Calendar.getInstance(TimeZone.getTimeZone("UTC"));

  public static void main(String[] args) throws Exception {
    try (Connection connection = DriverManager.getConnection(args[0])) {
      String version = connection.getMetaData().getDriverVersion();
      System.out.println(version + ", Java " + System.getProperty("java.version"));
    }
    BufferedReader asked = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = asked.readLine(); line != null; line = asked.readLine()) {
      String[] words = line.split(" ");
      String after = URLEncoder.encode(words[0], StandardCharsets.UTF_8);
      try (Connection connection = DriverManager.getConnection(args[0] + "&merganser-after=" + after)) {
        System.out.println(row(connection, args[2], Long.parseLong(words[1])) + "\t" + catalog(connection, args[1]));
      }
    }
    System.exit(0);
  }

  static String row(Connection connection, String sql, long sale) throws SQLException {
    String typed = sql + " AND s.qty >= ? AND s.price > ? AND s.sku LIKE ? AND s.sold_at <= ?";
    try (PreparedStatement statement = connection.prepareStatement(typed)) {
      statement.setLong(1, sale);
      statement.setInt(2, 0);
      statement.setBigDecimal(3, new BigDecimal("0.00"));
      statement.setString(4, "ü%");
      statement.setTimestamp(5, Timestamp.from(Instant.parse("2030-01-01T00:00:00Z")), UTC);
      try (ResultSet rows = statement.executeQuery()) {
        if (!rows.next()) return "none";
        StringJoiner found = new StringJoiner("\t");
        found.add(rows.getString(1)).add("" + rows.getInt(2)).add(rows.getBigDecimal(3).toPlainString());
        found.add(rows.getObject(4, Instant.class).toString());
        return found.add("" + rows.getLong(5)).add("" + rows.getLong(6)).add("" + rows.getLong(7)).toString();
      }
    }
  }

  static String catalog(Connection connection, String table) throws SQLException {
    DatabaseMetaData about = connection.getMetaData();
    StringJoiner found = new StringJoiner(" ");
    try (ResultSet tables = about.getTables(null, "main", table, new String[] {"TABLE"})) {
      while (tables.next()) found.add(tables.getString("TABLE_NAME"));
    }
    try (ResultSet columns = about.getColumns(null, "main", table, "%")) {
      while (columns.next()) found.add(columns.getString("COLUMN_NAME") + ":" + columns.getInt("DATA_TYPE"));
    }
    try (ResultSet keys = about.getPrimaryKeys(null, "main", table)) {
      while (keys.next()) found.add("key:" + keys.getString("COLUMN_NAME"));
    }
    return found.toString();
  }
}
